"""Freeze windows: add, list, remove."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy.orm import Session

from control_plane.domain import freeze
from control_plane.domain.names import check_label
from control_plane.errors import NotFoundError
from control_plane.registry import endpoints, freeze_windows
from control_plane.registry import session as sessions
from control_plane.registry.tables import FreezeWindow
from control_plane.services import events
from control_plane.services.context import Context
from control_plane.services.rollout_plans import reason_given


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeWindowView:
    """One freeze window. Times are UTC seconds since the epoch."""

    id: str
    endpoint: str | None
    """None: every endpoint."""
    starts_at: float
    ends_at: float
    weekly: bool
    reason: str
    active: bool
    """Whether it freezes now."""
    until: float | None
    """When the present occurrence ends; None while it is not active."""
    created_by: str
    created_at: float


def add(
    ctx: Context,
    *,
    actor: str,
    starts_at: float,
    ends_at: float,
    reason: str,
    endpoint: str | None = None,
    weekly: bool = False,
) -> FreezeWindowView:
    """Freeze an endpoint, or every one, from *starts_at* up to *ends_at*; weekly: again every seven days.

    What stands is held meanwhile, what begins is refused; rolling back is always possible. Raises
    InvalidInputError, and NotFoundError for an endpoint that is not there.
    """
    freeze.check(starts_at, ends_at, weekly=weekly)
    why = reason_given(reason, "a freeze window") or ""
    now = time.time()
    with sessions.write(ctx.engine) as session:
        if endpoint is not None:
            _check_endpoint(session, endpoint)
        row = FreezeWindow(
            endpoint=endpoint,
            starts_at=starts_at,
            ends_at=ends_at,
            weekly=weekly,
            reason=why,
            created_by=actor,
            created_at=now,
        )
        session.add(row)
        session.flush()
        view = _view(row, now)
        events.record(
            session,
            at=now,
            actor=actor,
            action="freeze.added",
            subject=_subject(row),
            message=f"{actor} froze {_what(row)}{' every week' if weekly else ''}: {why}",
            window=row.id,
            starts_at=starts_at,
            ends_at=ends_at,
            weekly=weekly,
        )
    return view


def list_all(ctx: Context, *, endpoint: str | None = None) -> tuple[FreezeWindowView, ...]:
    """Every window, the earliest first, past ones included. endpoint: only those that freeze it."""
    now = time.time()
    with sessions.read(ctx.engine) as session:
        return tuple(
            _view(row, now)
            for row in freeze_windows.rows(session)
            if endpoint is None or row.endpoint in (None, endpoint)
        )


def remove(ctx: Context, window_id: str, *, actor: str) -> None:
    """Take a window away; it freezes nothing from now on. Raises NotFoundError."""
    with sessions.write(ctx.engine) as session:
        row = session.get(FreezeWindow, window_id)
        if row is None:
            raise NotFoundError(
                f"There is no freeze window {window_id[:80]!r}", next_step="See `signalbox freeze list`."
            )
        events.record(
            session,
            at=time.time(),
            actor=actor,
            action="freeze.removed",
            subject=_subject(row),
            message=f"{actor} removed the freeze of {_what(row)}: {row.reason}",
            window=row.id,
        )
        session.delete(row)


def _check_endpoint(session: Session, name: str) -> None:
    check_label("endpoint", name)
    if endpoints.find(session, name) is None:
        raise NotFoundError(f"There is no endpoint {name!r}", next_step="See the list of endpoints.")


def _subject(row: FreezeWindow) -> str:
    return f"endpoint/{row.endpoint}" if row.endpoint else "freeze"


def _what(row: FreezeWindow) -> str:
    return row.endpoint or "every endpoint"


def _view(row: FreezeWindow, now: float) -> FreezeWindowView:
    until = freeze_windows.value_of(row).end_at(now)
    return FreezeWindowView(
        id=row.id,
        endpoint=row.endpoint,
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        weekly=row.weekly,
        reason=row.reason,
        active=until is not None,
        until=until,
        created_by=row.created_by,
        created_at=row.created_at,
    )
