"""Queries about runs of the debugger."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from control_plane.domain.job import FINAL_STATES
from control_plane.registry.tables import DebugRun, Job

MAX_CHAIN = 100
"""Runs of one chain that are followed."""


def find(session: Session, run_id: str, *, lock: bool = False) -> DebugRun | None:
    """The run; with *lock*, nobody else changes it until the transaction ends."""
    query = select(DebugRun).where(DebugRun.id == run_id)
    return session.scalar(query.with_for_update(of=DebugRun) if lock else query)


def page(
    session: Session, *, q: str, saved: bool | None, offset: int, limit: int
) -> tuple[Sequence[DebugRun], int]:
    """Runs newest first, and how many there are in all. *q*: part of a name, a version or a creator."""
    conditions = []
    if q:
        texts = (DebugRun.name, DebugRun.a, DebugRun.b, DebugRun.created_by)
        conditions.append(or_(*(text.icontains(q, autoescape=True) for text in texts)))
    if saved is not None:
        conditions.append(DebugRun.name != "" if saved else DebugRun.name == "")
    total = session.scalar(select(func.count()).select_from(DebugRun).where(*conditions)) or 0
    query = select(DebugRun).where(*conditions).order_by(DebugRun.created_at.desc(), DebugRun.id)
    return session.scalars(query.offset(offset).limit(limit)).all(), total


def ancestors(session: Session, row: DebugRun) -> list[DebugRun]:
    """The runs that *row* came from, oldest first, as far as they are there."""
    chain: list[DebugRun] = []
    while row.parent_id is not None and len(chain) < MAX_CHAIN:
        parent = find(session, row.parent_id)
        if parent is None:
            break
        chain.insert(0, parent)
        row = parent
    return chain


def children(session: Session, run_id: str) -> Sequence[DebugRun]:
    """Runs that came from it, oldest first."""
    query = select(DebugRun).where(DebugRun.parent_id == run_id)
    return session.scalars(query.order_by(DebugRun.created_at, DebugRun.id).limit(MAX_CHAIN)).all()


def expired(session: Session, now: float) -> Sequence[DebugRun]:
    """Runs whose time is over and that no job works on."""
    ended = Job.state.in_(FINAL_STATES)
    return session.scalars(select(DebugRun).join(Job).where(DebugRun.expires_at < now, ended)).all()


def oldest_unsaved(session: Session) -> Sequence[DebugRun]:
    """Runs without a name that no job works on, oldest first."""
    query = select(DebugRun).join(Job).where(DebugRun.name == "", Job.state.in_(FINAL_STATES))
    return session.scalars(query.order_by(DebugRun.created_at, DebugRun.id)).all()


def total_bytes(session: Session) -> int:
    """What all of them take on the disk."""
    return session.scalar(select(func.coalesce(func.sum(DebugRun.size_bytes), 0))) or 0


def ids(session: Session) -> frozenset[str]:
    """Ids of all of them."""
    return frozenset(session.scalars(select(DebugRun.id)))
