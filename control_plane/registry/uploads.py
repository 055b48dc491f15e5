"""Queries about uploads."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload, lazyload

from control_plane.domain.job import FINAL_STATES
from control_plane.domain.upload import UploadState
from control_plane.registry.tables import Job, Upload, Version

_WITH_VERSION = (
    joinedload(Upload.version).options(
        lazyload(Version.tags), joinedload(Version.model), lazyload(Version.artifact)
    ),
)


def find(session: Session, upload_id: str) -> Upload | None:
    """The upload with its version's name."""
    return session.scalar(select(Upload).where(Upload.id == upload_id).options(*_WITH_VERSION))


def locked(session: Session, upload_id: str) -> Upload | None:
    """The upload, locked until the transaction ends; its files are read when they are asked for."""
    query = select(Upload).where(Upload.id == upload_id).options(*_WITH_VERSION, lazyload(Upload.files))
    return session.scalar(query.with_for_update(of=Upload))


def page(
    session: Session, *, state: str | None = None, offset: int, limit: int
) -> tuple[Sequence[Upload], int]:
    """Uploads newest first, all or those in *state*, and how many there are."""
    wanted = [Upload.state == state] if state else []
    total = session.scalar(select(func.count()).select_from(Upload).where(*wanted)) or 0
    query = select(Upload).where(*wanted).options(*_WITH_VERSION)
    newest = query.order_by(Upload.created_at.desc(), Upload.id)
    return session.scalars(newest.offset(offset).limit(limit)).all(), total


def idle(session: Session, state: str, before: float) -> Sequence[Upload]:
    """Uploads in *state* that nobody touched since *before*, locked until the transaction ends.

    Those that a job is to fetch or fetches are not idle, however long it waits for its turn.
    """
    working = select(Job.id).where(Job.id == Upload.job_id, Job.state.not_in(FINAL_STATES)).exists()
    query = select(Upload).where(Upload.state == state, Upload.updated_at < before, ~working)
    return session.scalars(query.with_for_update()).all()


def stranded(session: Session) -> list[tuple[Upload, Job]]:
    """Uploads that are being fetched or checked by a job that has ended, each with that job."""
    query = select(Upload, Job).join(Job, Job.id == Upload.job_id)
    ended = query.where(
        Upload.state.in_((UploadState.RECEIVING, UploadState.CHECKING)), Job.state.in_(FINAL_STATES)
    )
    return [(row, job) for row, job in session.execute(ended)]


def in_state(session: Session, state: str, limit: int) -> Sequence[Upload]:
    """Uploads in *state*, newest first."""
    query = select(Upload).where(Upload.state == state).order_by(Upload.created_at.desc())
    return session.scalars(query.limit(limit)).all()


def ids(session: Session, candidates: Sequence[str], *, states: Sequence[str]) -> set[str]:
    """Which of *candidates* are uploads in one of *states*."""
    return set(session.scalars(select(Upload.id).where(Upload.id.in_(candidates), Upload.state.in_(states))))
