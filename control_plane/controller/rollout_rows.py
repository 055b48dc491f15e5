"""Rollouts as the controller reads them: rows, verdicts, gates and freeze windows as frozen values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.orm import Session

from control_plane.controller.snapshot import GatesOutcome, GatesSeen, RolloutSeen, VerdictSeen
from control_plane.domain import freeze
from control_plane.domain.endpoint import ServingSpec
from control_plane.domain.rollout import VerdictKind
from control_plane.registry import endpoints, rollouts
from control_plane.registry.tables import Endpoint, Job, Rollout, Version


def seen(
    db: Session, endpoint: Endpoint, row: Rollout, windows: Sequence[freeze.Window], now: float
) -> RolloutSeen:
    """The rollout *row* of *endpoint*, with what is known beside it."""
    rollout = rollouts.value_of(row)
    window = None if rollout.plan.break_freeze else freeze.active(windows, endpoint.name, now)
    return RolloutSeen(
        rollout=rollout,
        stable_spec=_spec(endpoint, row.stable, row.stable_handler),
        candidate_spec=_spec(endpoint, row.candidate, row.candidate_handler),
        verdict=_verdict(row),
        gates=_gates(db, row),
        frozen=freeze.told(window, now) if window is not None else None,
    )


def _spec(endpoint: Endpoint, version: Version, handler: str) -> ServingSpec:
    wanted = endpoints.wanted_spec(endpoint)
    return replace(wanted, version_id=version.id, version_ref=version.ref, handler=handler)


def _verdict(row: Rollout) -> VerdictSeen | None:
    said = row.verdict
    if said is None:
        return None
    return VerdictSeen(VerdictKind(said["kind"]), said["code"], said["sentence"], said["at"])


def _gates(db: Session, row: Rollout) -> GatesSeen:
    """What the gates' job says; the first gate that failed names the reason."""
    if row.gate_job_id is None:
        return GatesSeen()
    job = db.get(Job, row.gate_job_id)
    if job is None or job.state in ("failed", "cancelled"):
        why = (job.error or {}).get("message") if job else None
        return GatesSeen(GatesOutcome.BROKEN, f"the gates could not be run: {why or 'their job is gone'}")
    if job.state != "succeeded":
        return GatesSeen(GatesOutcome.RUNNING)
    failed = next((gate for gate in row.gates or () if gate["outcome"] == "failed"), None)
    if failed is None:
        return GatesSeen(GatesOutcome.PASSED)
    return GatesSeen(GatesOutcome.FAILED, f"gate {failed['title']}: {failed['sentence']}", failed["name"])
