"""Queries about freeze windows, and their rows as values."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from control_plane.domain.freeze import Window
from control_plane.registry.tables import FreezeWindow as Row


def value_of(row: Row) -> Window:
    """*row* as decisions see it."""
    return Window(
        id=row.id,
        endpoint=row.endpoint,
        starts_at=row.starts_at,
        ends_at=row.ends_at,
        weekly=row.weekly,
        reason=row.reason,
    )


def rows(session: Session) -> Sequence[Row]:
    """Every window, the earliest first."""
    return session.scalars(select(Row).order_by(Row.starts_at, Row.id)).all()


def near(session: Session, now: float) -> tuple[Window, ...]:
    """Windows that may be active at *now*, and weekly ones (see `freeze.active`)."""
    query = select(Row).where(Row.starts_at <= now, or_(Row.weekly.is_(True), Row.ends_at > now))
    return tuple(value_of(row) for row in session.scalars(query))
