"""Queries about jobs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from control_plane.domain.job import JobState
from control_plane.registry.tables import Job


def page(
    session: Session, *, state: str | None, kind: str | None, offset: int, limit: int
) -> tuple[Sequence[Job], int]:
    """Jobs newest first, and how many there are in all."""
    conditions = []
    if state is not None:
        conditions.append(Job.state == state)
    if kind is not None:
        conditions.append(Job.kind == kind)
    total = session.scalar(select(func.count()).select_from(Job).where(*conditions)) or 0
    query = select(Job).where(*conditions).order_by(Job.created_at.desc(), Job.id)
    return session.scalars(query.offset(offset).limit(limit)).all(), total


def next_queued(
    session: Session, *, only: Collection[str] | None = None, besides: Collection[str] = ()
) -> Job | None:
    """The oldest queued job, locked so that no other claimer sees it.

    only: kinds that are looked for, all without it; besides: kinds that are left out.
    """
    query = select(Job).where(Job.state == JobState.QUEUED, *_of_kinds(only, besides))
    query = query.order_by(Job.created_at, Job.id).limit(1)
    return session.scalar(query.with_for_update(skip_locked=True))


def is_queued(
    session: Session, *, only: Collection[str] | None = None, besides: Collection[str] = ()
) -> bool:
    """Whether a job of those kinds is queued."""
    query = select(Job.id).where(Job.state == JobState.QUEUED, *_of_kinds(only, besides))
    return session.scalar(query.limit(1)) is not None


def count_running(session: Session, kinds: Collection[str]) -> int:
    """How many jobs of those kinds run."""
    query = select(func.count()).select_from(Job).where(Job.state == JobState.RUNNING, Job.kind.in_(kinds))
    return session.scalar(query) or 0


def ahead(
    session: Session, job: Job, *, only: Collection[str] | None = None, besides: Collection[str] = ()
) -> int:
    """How many jobs of those kinds are queued before *job*."""
    earlier = or_(Job.created_at < job.created_at, and_(Job.created_at == job.created_at, Job.id < job.id))
    query = select(func.count()).select_from(Job).where(Job.state == JobState.QUEUED, earlier)
    return session.scalar(query.where(*_of_kinds(only, besides))) or 0


def _of_kinds(only: Collection[str] | None, besides: Collection[str]) -> list[ColumnElement[bool]]:
    wanted = [] if only is None else [Job.kind.in_(only)]
    return [*wanted, *([Job.kind.not_in(besides)] if besides else [])]


def unfinished(session: Session) -> frozenset[str]:
    """Ids of jobs that are queued or run."""
    live = (JobState.QUEUED, JobState.RUNNING)
    return frozenset(session.scalars(select(Job.id).where(Job.state.in_(live))))


def locked(session: Session, job_id: str) -> Job | None:
    """The job, locked until the transaction ends."""
    return session.scalar(select(Job).where(Job.id == job_id).with_for_update())


def running(session: Session) -> Sequence[Job]:
    """Jobs whose row says that a process works on them."""
    return session.scalars(select(Job).where(Job.state == JobState.RUNNING)).all()


def count_by_state(session: Session) -> dict[str, int]:
    """How many jobs are queued and running (the final states are not counted)."""
    live = (JobState.QUEUED, JobState.RUNNING)
    rows = session.execute(select(Job.state, func.count()).where(Job.state.in_(live)).group_by(Job.state))
    return {row[0]: row[1] for row in rows}


def failed_since(session: Session, since: float, limit: int) -> Sequence[Job]:
    """Jobs that failed after *since*, newest first."""
    query = select(Job).where(Job.state == JobState.FAILED, Job.finished_at >= since)
    return session.scalars(query.order_by(Job.finished_at.desc()).limit(limit)).all()
