"""The journal of optimisation jobs: every trial is a row, written at each change of its state.

Whatever a job knows of its trials it reads from here, so one that starts again goes on where the last start
was.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from control_plane.domain.optimization import Decision, Report, TrialState
from control_plane.domain.views import Reason
from control_plane.errors import NotFoundError
from control_plane.optimization.messages import BuildReply
from control_plane.registry import optimization_trials
from control_plane.registry import session as sessions
from control_plane.registry.tables import OptimizationTrial
from control_plane.services import versions
from control_plane.services.context import Context

UNFINISHED: Final = frozenset({TrialState.QUEUED, TrialState.BUILDING, TrialState.SCREENED})
INTERRUPTED: Final = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One row of the journal."""

    number: int
    method: str
    params: dict[str, Any]
    follows: int | None
    state: TrialState
    reason: Reason | None
    build: BuildReply | None
    screening: Report | None
    report: Report | None
    decision: Decision | None
    version_ref: str | None


@dataclass(frozen=True, slots=True)
class Idea:
    """A trial that is yet to be."""

    method: str
    params: dict[str, Any]
    follows: int | None = None


def journal(ctx: Context, job_id: str) -> tuple[Trial, ...]:
    """The job's trials in the order of their numbers."""
    with sessions.read(ctx.engine) as session:
        return tuple(of_row(row) for row in optimization_trials.of_job(session, job_id))


def add(ctx: Context, job_id: str, ideas: Sequence[Idea]) -> None:
    """Queue trials, numbered on from those that are there."""
    now = time.time()
    with sessions.write(ctx.engine) as session:
        present = optimization_trials.of_job(session, job_id)
        first = max((row.number for row in present), default=0) + 1
        for number, idea in enumerate(ideas, first):
            session.add(
                OptimizationTrial(
                    job_id=job_id,
                    number=number,
                    method=idea.method,
                    params=idea.params,
                    follows=idea.follows,
                    state=TrialState.QUEUED,
                    stage="",
                    created_at=now,
                    updated_at=now,
                )
            )


def begin_anew(ctx: Context, job_id: str) -> None:
    """Forget the job's trials: it begins from nothing."""
    with sessions.write(ctx.engine) as session:
        optimization_trials.forget(session, job_id)


def building(ctx: Context, job_id: str, number: int, stage: str) -> None:
    """A trial is being worked on."""
    _change(ctx, job_id, number, state=TrialState.BUILDING, stage=stage)


def stage(ctx: Context, job_id: str, number: int, said: str) -> None:
    """What is being done with a trial, in whatever state it is."""
    _change(ctx, job_id, number, stage=said)


def built(ctx: Context, job_id: str, number: int, reply: BuildReply) -> None:
    """A trial's artefact is there."""
    kept = {
        "format": reply.format,
        "notes": list(reply.notes),
        "libraries": reply.libraries,
        "seconds": reply.seconds,
    }
    _change(ctx, job_id, number, build=kept)


def screened(ctx: Context, job_id: str, number: int, report: Report) -> None:
    """A trial was measured roughly."""
    _change(ctx, job_id, number, state=TrialState.SCREENED, stage="", screening=_plain(report))


def measured(ctx: Context, job_id: str, number: int, report: Report, decision: Decision) -> None:
    """A trial was measured in full, and judged."""
    _change(
        ctx, job_id, number, state=TrialState.MEASURED, stage="",
        report=_plain(report), decision=_plain(decision),
    )  # fmt: skip


def failed(ctx: Context, job_id: str, number: int, reason: Reason) -> None:
    """A trial could not be built or measured."""
    _change(ctx, job_id, number, state=TrialState.FAILED, reason=_of_reason(reason))


def dropped(ctx: Context, job_id: str, number: int, code: str, why: str) -> None:
    """A trial is left behind. why: a sentence without a full stop."""
    _change(ctx, job_id, number, state=TrialState.DROPPED, stage="", reason=_of_reason(Reason(code, why)))


def registered(ctx: Context, job_id: str, number: int, ref: str, *, by_job: str) -> None:
    """A trial's artefact has become a version."""
    with sessions.write(ctx.engine) as session:
        row = optimization_trials.find(session, job_id, number, lock=True)
        if row is not None:
            row.version_id = versions.find(session, ref).id
            row.registering_job_id, row.updated_at = by_job, time.time()


def settle(ctx: Context, job_id: str, reason: Reason | None) -> None:
    """The job has ended early, for *reason* or because it was cancelled: no trial goes on. Idempotent."""
    said = reason or Reason("cancelled", "the job was cancelled")
    with sessions.write(ctx.engine) as session:
        for row in optimization_trials.of_job(session, job_id):
            if row.state in UNFINISHED:
                row.state, row.reason = TrialState.FAILED, _of_reason(said)
                row.updated_at = time.time()


def of_row(row: OptimizationTrial) -> Trial:
    """*row* as jobs work with it."""
    return Trial(
        number=row.number,
        method=row.method,
        params=row.params,
        follows=row.follows,
        state=TrialState(row.state),
        reason=reason_of(row),
        build=msgspec.convert(row.build, BuildReply) if row.build else None,
        screening=msgspec.convert(row.screening, Report) if row.screening else None,
        report=msgspec.convert(row.report, Report) if row.report else None,
        decision=msgspec.convert(row.decision, Decision) if row.decision else None,
        version_ref=row.version.ref if row.version else None,
    )


def reason_of(row: OptimizationTrial) -> Reason | None:
    """Why it failed or was dropped."""
    return Reason(**row.reason) if row.reason else None


def _of_reason(reason: Reason) -> dict[str, Any]:
    return {"code": reason.code, "message": reason.message, "next_step": reason.next_step}


def _change(ctx: Context, job_id: str, number: int, **values: Any) -> None:
    with sessions.write(ctx.engine) as session:
        row = optimization_trials.find(session, job_id, number, lock=True)
        if row is None:
            raise NotFoundError(f"There is no trial {number} of job {job_id}")
        for name, value in values.items():
            setattr(row, name, value)
        row.updated_at = time.time()


def _plain(value: Report | Decision) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain
