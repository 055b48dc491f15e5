"""Queries about reports of profiles."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from control_plane.domain.job import FINAL_STATES
from control_plane.registry.tables import Job, ProfileReport


def find(session: Session, report_id: str, *, lock: bool = False) -> ProfileReport | None:
    """The report; with *lock*, nobody else changes it until the transaction ends."""
    query = select(ProfileReport).where(ProfileReport.id == report_id)
    return session.scalar(query.with_for_update(of=ProfileReport) if lock else query)


def page(
    session: Session, *, q: str, ref: str | None, offset: int, limit: int
) -> tuple[Sequence[ProfileReport], int]:
    """Reports newest first, and how many there are. *q*: part of a name, version, endpoint or creator."""
    conditions = []
    if q:
        texts = (ProfileReport.name, ProfileReport.ref, ProfileReport.endpoint, ProfileReport.created_by)
        conditions.append(or_(*(text.icontains(q, autoescape=True) for text in texts)))
    if ref is not None:
        conditions.append(ProfileReport.ref == ref)
    total = session.scalar(select(func.count()).select_from(ProfileReport).where(*conditions)) or 0
    query = select(ProfileReport).where(*conditions)
    query = query.order_by(ProfileReport.created_at.desc(), ProfileReport.id)
    return session.scalars(query.offset(offset).limit(limit)).all(), total


def expired(session: Session, now: float) -> Sequence[ProfileReport]:
    """Reports whose time is over and that no job works on."""
    over = (ProfileReport.expires_at < now, Job.state.in_(FINAL_STATES))
    return session.scalars(select(ProfileReport).join(Job).where(*over)).all()


def oldest(session: Session) -> Sequence[ProfileReport]:
    """Reports that no job works on, oldest first."""
    query = select(ProfileReport).join(Job).where(Job.state.in_(FINAL_STATES))
    return session.scalars(query.order_by(ProfileReport.created_at, ProfileReport.id)).all()


def total_bytes(session: Session) -> int:
    """What all of them take on the disk."""
    return session.scalar(select(func.coalesce(func.sum(ProfileReport.size_bytes), 0))) or 0


def ids(session: Session) -> frozenset[str]:
    """Ids of all of them."""
    return frozenset(session.scalars(select(ProfileReport.id)))
