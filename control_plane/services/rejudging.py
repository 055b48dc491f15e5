"""What the present gate says of versions that an earlier one let in, and what follows from it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, select

from control_plane.admission import gate
from control_plane.admission.base import Verdict
from control_plane.admission.verdict_record import recorded
from control_plane.domain.job import JobState
from control_plane.domain.optimization import REPORT
from control_plane.domain.verdict import decision_of
from control_plane.domain.views import JobView
from control_plane.errors import ConflictError, NotFoundError
from control_plane.registry import jobs as job_rows
from control_plane.registry import session as sessions
from control_plane.registry.artifacts import ArtifactStore
from control_plane.registry.tables import Version
from control_plane.services import events, jobs, versions
from control_plane.services.context import Context

KIND: Final = "rejudge"
WORKER: Final = "worker"
NAMED_BY_PEOPLE: Final = ("architecture.json", "config.json")
"""Files that say which network bare weights belong to, where the lineage says that a person named it."""
_LIVE: Final = (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Stored:
    """What is judged again of one version."""

    ref: str
    folder: Path
    """Its evidence: the original upload; else the files it serves."""
    files: tuple[str, ...]
    """Those below *folder* that were uploaded: not the network that a person named for bare weights."""


def queue(ctx: Context, *, ref: str | None = None, every: bool = False, actor: str) -> JobView:
    """Have one version judged again, or every one that a gate let in; without either, those that are due.

    A job that waits or runs for the same is returned as it is. Raises NotFoundError, and ConflictError for a
    variant that our own optimisation job has made: it never was an upload.
    """
    version_id = _judgeable(ctx, ref) if ref else None
    params: dict[str, Any] = {"version_id": version_id} if ref else {"every": every}
    with sessions.write(ctx.engine) as session:
        sessions.lock(session, KIND)
        for state in _LIVE:
            rows, _ = job_rows.page(session, state=state, kind=KIND, offset=0, limit=100)
            if same := [row for row in rows if row.params == params]:
                return jobs.view(same[0])
        return jobs.view(jobs.queue(session, KIND, subject=ref or "versions", params=params, actor=actor))


def queue_due(ctx: Context) -> JobView | None:
    """Have everything judged again that another gate let in; None where there is nothing.

    What our own jobs made (no gate has judged it) stays out: its weights never were an upload.
    """
    with sessions.read(ctx.engine) as session:
        due = session.scalar(select(Version.id).where(_due()).limit(1))
    return queue(ctx, actor=WORKER) if due is not None else None


def wanted(ctx: Context, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Ids of the versions that a job with *params* is to judge, oldest first."""
    if params.get("version_id"):
        return (str(params["version_id"]),)
    query = select(Version.id).order_by(Version.created_at, Version.id)
    with sessions.read(ctx.engine) as session:
        return tuple(session.scalars(query.where(_judged() if params.get("every") else _due())))


def stored(ctx: Context, version_id: str) -> Stored | None:
    """Where the files lie that are judged; None when the version is gone meanwhile. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        row = session.get(Version, version_id)
        if row is None:
            return None
        kept = row.evidence or row.artifact
        ref, digest = row.ref, kept.digest
        ours = NAMED_BY_PEOPLE if row.evidence is None and "architecture" in row.lineage else ()
        files = tuple(file["path"] for file in kept.files if file["path"] not in ours)
    store = ArtifactStore(ctx.settings.artifacts_dir)
    if not store.holds(digest):
        raise NotFoundError(f"The files of {ref} are missing from the artefact store")
    return Stored(ref, store.folder(digest), files)


def record(ctx: Context, version_id: str, verdict: Verdict, *, actor: str) -> None:
    """Keep what the present gate said of a version, with an event. Does nothing when it is gone."""
    with sessions.write(ctx.engine) as session:
        row = session.scalar(select(Version).where(Version.id == version_id).with_for_update(of=Version))
        if row is None:
            return
        before = decision_of(row.verdict)
        row.verdict, row.gate_version = recorded(verdict), gate.VERSION
        events.record(
            session,
            at=time.time(),
            actor=actor,
            action="version.rejudged",
            subject=row.ref,
            message=f"{row.ref} was judged again: {verdict.decision} ({verdict.code})",
            gate_version=gate.VERSION,
            before=before,
            decision=verdict.decision,
            code=str(verdict.code),
        )


def _judgeable(ctx: Context, ref: str) -> str:
    """Id of the version *ref*. Raises ConflictError where there is nothing that a gate could judge."""
    version = versions.get(ctx, ref)
    if version.gate_version is None and REPORT in version.lineage:
        raise ConflictError(
            f"{version.ref} was made here, from {version.parent}: no gate judges it",
            next_step="Have the version judged again that it was made from.",
        )
    return version.id


def _judged() -> ColumnElement[bool]:
    return Version.gate_version.is_not(None)


def _due() -> ColumnElement[bool]:
    return Version.gate_version != gate.VERSION  # for none, SQL says neither yes nor no
