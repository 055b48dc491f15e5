"""The audit trail: who did what, written in the same transaction as the change."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from control_plane.domain.views import EventView, Page
from control_plane.registry import events
from control_plane.registry import session as sessions
from control_plane.registry.tables import Event
from control_plane.services.context import Context
from control_plane.services.paging import offset, query_text


def record(
    session: Session, *, at: float, actor: str, action: str, subject: str, message: str, **details: Any
) -> None:
    """Add one event to the transaction of *session*; without it the change must not happen either.

    action: `noun.verb` in the past tense, e.g. `endpoint.deployed`; subject: `digits@2`, `endpoint/digits`,
    `upload/<id>`, `job/<id>`; message: one sentence for people; details: JSON values.
    """
    session.add(Event(at=at, actor=actor, action=action, subject=subject, message=message, details=details))


def search(
    ctx: Context,
    *,
    q: str = "",
    subject: str | None = None,
    actor: str | None = None,
    page: int = 1,
    page_size: int = 50,
) -> Page[EventView]:
    """Events newest first; *q* is part of any of their texts, *subject* and *actor* are exact."""
    start = offset(page, page_size)
    with sessions.read(ctx.engine) as session:
        rows, total = events.page(
            session, q=query_text(q), subject=subject, actor=actor, offset=start, limit=page_size
        )
        return Page(tuple(view(row) for row in rows), total, page, page_size)


def view(row: Event) -> EventView:
    """*row* as services return it."""
    return EventView(row.id, row.at, row.actor, row.action, row.subject, row.message, row.details)
