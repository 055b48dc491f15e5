"""What the gates of a rollout say, as its row keeps it. Written by the job of the gates alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from control_plane.domain.rollout import RolloutState
from control_plane.registry import rollouts
from control_plane.registry import session as sessions
from control_plane.registry.tables import Rollout
from control_plane.services.context import Context
from control_plane.services.jobs import JobCancelled

RUNNING: Final = "running"
FAILED: Final = "failed"
GateRow = dict[str, Any]
"""{"name", "title", "outcome", "sentence", "figures"}"""


def waiver(ctx: Context, rollout_id: str, job_id: str) -> str | None:
    """Why the rollout leaves its gates out; None: they run.

    Raises JobCancelled where nobody waits for this job.
    """
    with sessions.read(ctx.engine) as session:
        row = _checked(rollouts.find(session, rollout_id), job_id)
        return rollouts.value_of(row).plan.skip_gates


def record(ctx: Context, rollout_id: str, job_id: str, gates: Sequence[Mapping[str, Any]]) -> None:
    """Keep what the gates say so far.

    Raises JobCancelled, and writes nothing, unless the rollout is in preflight and waits for this very job.
    """
    with sessions.write(ctx.engine) as session:
        row = _checked(rollouts.locked(session, rollout_id), job_id)
        row.gates = [dict(gate) for gate in gates]


def interrupted(ctx: Context, rollout_id: str, sentence: str) -> None:
    """Let no gate stand as running whose job has ended early. Idempotent."""
    with sessions.write(ctx.engine) as session:
        row = rollouts.locked(session, rollout_id)
        if row is not None and _in_preflight(row):
            row.gates = [_settled(gate, sentence) for gate in row.gates or ()]


def _settled(gate: GateRow, sentence: str) -> GateRow:
    return {**gate, "outcome": FAILED, "sentence": sentence} if gate["outcome"] == RUNNING else gate


def _checked(row: Rollout | None, job_id: str) -> Rollout:
    if row is None or row.gate_job_id != job_id or not _in_preflight(row):
        raise JobCancelled(job_id)
    return row


def _in_preflight(row: Rollout) -> bool:
    return row.state == RolloutState.PREFLIGHT
