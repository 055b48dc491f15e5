"""Rows of debugger runs: what the job is to do, and what it says of it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import msgspec
from sqlalchemy.orm import Session

from control_plane.domain.debugging import DebugRunView, InputView
from control_plane.domain.job import JobState
from control_plane.domain.views import Reason
from control_plane.errors import NotFoundError
from control_plane.registry import debug_runs
from control_plane.registry import session as sessions
from control_plane.registry.tables import DebugRun
from control_plane.services.context import Context
from serving_agent.contract.inspection import STAGES, Edit

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run's job is to do."""

    a: str
    b: str | None
    edits: tuple[Edit, ...]

    def sides(self) -> tuple[tuple[str, str, tuple[Edit, ...]], ...]:
        """(side, `model@N`, edits) of each: B has only those of what goes into it."""
        first = ("a", self.a, self.edits)
        if self.b is None:
            return (first,)
        return (first, ("b", self.b, tuple(each for each in self.edits if each.point in STAGES)))


def plan(ctx: Context, run_id: str) -> Plan:
    """What the run's job is to do. Raises NotFoundError where it was deleted."""
    with sessions.read(ctx.engine) as session:
        row = found(session, run_id)
        return Plan(a=row.a, b=row.b, edits=edits_of(row))


def exists(ctx: Context, run_id: str) -> bool:
    """Whether nobody has deleted the run."""
    with sessions.read(ctx.engine) as session:
        return debug_runs.find(session, run_id) is not None


def inspected(ctx: Context, run_id: str, *, summary: str, size_bytes: int) -> bool:
    """Write down what came of it; False where the run was deleted meanwhile."""
    with sessions.write(ctx.engine) as session:
        row = debug_runs.find(session, run_id, lock=True)
        if row is None:
            return False
        row.summary, row.size_bytes = summary.replace("\0", ""), size_bytes
        return True


def found(session: Session, run_id: str, *, lock: bool = False) -> DebugRun:
    """The row. Raises NotFoundError."""
    row = debug_runs.find(session, run_id, lock=lock)
    if row is None:
        raise NotFoundError(
            f"There is no debugger run {run_id[:80]!r}", next_step="See `signalbox debug-runs`."
        )
    return row


def edits_of(row: DebugRun) -> tuple[Edit, ...]:
    """All edits of the run."""
    return msgspec.convert(row.edits, tuple[Edit, ...])


def view(row: DebugRun) -> DebugRunView:
    """*row* as services return it."""
    job = row.job
    return DebugRunView(
        id=row.id,
        name=row.name,
        saved=bool(row.name),
        state=job.state,
        stage=job.stage,
        progress=job.progress,
        reason=Reason(**job.error) if job.error and job.state == JobState.FAILED else None,
        job_id=row.job_id,
        a=row.a,
        b=row.b,
        input=row.input,
        inputs=msgspec.convert(row.inputs, tuple[InputView, ...]),
        edits=edits_of(row),
        parent_id=row.parent_id,
        size_bytes=row.size_bytes,
        summary=row.summary,
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def expires_at(ctx: Context, created_at: float, *, saved: bool) -> float:
    """When a run goes: a name that is given later counts from then."""
    settings = ctx.settings
    if saved:
        return max(created_at, time.time()) + settings.debug_keep_saved_d * DAY_S
    return created_at + settings.debug_keep_h * HOUR_S
