"""Queries about trials of optimisation jobs."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, joinedload, lazyload

from control_plane.registry.tables import OptimizationTrial, Version

_WITH_VERSION = joinedload(OptimizationTrial.version).options(
    lazyload(Version.tags), lazyload(Version.artifact), joinedload(Version.model)
)


def of_job(session: Session, job_id: str) -> Sequence[OptimizationTrial]:
    """The job's trials in the order of their numbers."""
    query = select(OptimizationTrial).where(OptimizationTrial.job_id == job_id)
    return session.scalars(query.order_by(OptimizationTrial.number).options(_WITH_VERSION)).all()


def find(session: Session, job_id: str, number: int, *, lock: bool = False) -> OptimizationTrial | None:
    """One trial; with *lock*, nobody else changes it until the transaction ends."""
    query = select(OptimizationTrial).where(
        OptimizationTrial.job_id == job_id, OptimizationTrial.number == number
    )
    return session.scalar(query.with_for_update() if lock else query)


def forget(session: Session, job_id: str) -> None:
    """Delete the job's trials."""
    session.execute(delete(OptimizationTrial).where(OptimizationTrial.job_id == job_id))


def forget_version(session: Session, version_id: str) -> None:
    """Leave the version out of the trial that became it."""
    session.execute(
        update(OptimizationTrial).where(OptimizationTrial.version_id == version_id).values(version_id=None)
    )


def latest_built(
    session: Session, methods: Collection[str], *, states: Collection[str], each: int
) -> Sequence[OptimizationTrial]:
    """Of every method in *methods* its latest *each* trials in one of *states*, newest first."""
    place = func.row_number().over(
        partition_by=OptimizationTrial.method, order_by=OptimizationTrial.updated_at.desc()
    )
    ranked = (
        select(OptimizationTrial.id, place.label("place"))
        .where(OptimizationTrial.method.in_(methods), OptimizationTrial.state.in_(states))
        .subquery()
    )
    query = (
        select(OptimizationTrial)
        .join(ranked, ranked.c.id == OptimizationTrial.id)
        .where(ranked.c.place <= each)
        .order_by(OptimizationTrial.updated_at.desc())
    )
    return session.scalars(query).all()
