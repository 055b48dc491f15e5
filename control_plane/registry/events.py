"""Queries about events."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from control_plane.registry.tables import Event


def page(
    session: Session, *, q: str, subject: str | None, actor: str | None, offset: int, limit: int
) -> tuple[Sequence[Event], int]:
    """Events newest first, and how many there are in all. *q* is looked for in every text of an event."""
    conditions: list[ColumnElement[bool]] = []
    if subject is not None:
        conditions.append(Event.subject == subject)
    if actor is not None:
        conditions.append(Event.actor == actor)
    if q:
        columns = (Event.message, Event.subject, Event.action, Event.actor)
        conditions.append(or_(*(column.icontains(q, autoescape=True) for column in columns)))
    total = session.scalar(select(func.count()).select_from(Event).where(*conditions)) or 0
    query = select(Event).where(*conditions).order_by(Event.at.desc(), Event.id.desc())
    return session.scalars(query.offset(offset).limit(limit)).all(), total


def latest(session: Session, subject: str, *, actions: Sequence[str]) -> Event | None:
    """The newest event of *subject* whose action is one of *actions*."""
    query = select(Event).where(Event.subject == subject, Event.action.in_(actions))
    return session.scalar(query.order_by(Event.at.desc(), Event.id.desc()).limit(1))
