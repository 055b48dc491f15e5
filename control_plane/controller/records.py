"""The controller's decisions as rows: each in one fenced transaction, with its event where people care."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import delete
from sqlalchemy.orm import Session

from control_plane.controller.actions import (
    CreateAgent,
    EndAgent,
    FailAgent,
    MoveRollout,
    QueueGates,
    RecordCheck,
    RecordInTraffic,
    RecordPhase,
    RecordProcess,
    RemoveEndpoint,
    SetServing,
)
from control_plane.domain.endpoint import LIVE_PHASES, AgentPhase
from control_plane.platforms.base import Addresses
from control_plane.registry import endpoints, gate_jobs, rollout_moves, rollouts
from control_plane.registry.tables import Agent, Endpoint, Event

ACTOR = "controller"


def create_agent(db: Session, action: CreateAgent, addresses: Addresses) -> None:
    """Write the row of a new agent. Does nothing when it is there, or its endpoint is not."""
    if db.get(Agent, action.agent_id) is not None or db.get(Endpoint, action.endpoint_id) is None:
        return
    row = Agent(
        id=action.agent_id,
        endpoint_id=action.endpoint_id,
        version_id=action.spec.version_id,
        spec=endpoints.spec_json(action.spec),
        phase=AgentPhase.STARTING,
        rest_address=addresses.rest,
        grpc_address=addresses.grpc,
        timings_s={},
        created_at=action.at,
    )
    db.add(row)


def record_process(db: Session, action: RecordProcess) -> None:
    """Note which process the agent is."""
    row = _live(db, action.agent_id)
    if row is not None:
        row.pid, row.pid_started_at = action.process.pid, action.process.started_at


def record_phase(db: Session, action: RecordPhase) -> None:
    """Note how far the agent is."""
    row = _live(db, action.agent_id)
    if row is None:
        return
    row.phase, row.device = action.phase, action.device
    row.timings_s = dict(action.timings_s)
    if action.phase is AgentPhase.READY:
        row.ready_at = action.at
        took = action.at - row.created_at
        version = row.spec["version_ref"]
        message = f"agent {row.id} of {row.endpoint.name} is ready with {version} after {took:.1f} s"
        _event(db, action.at, "agent.ready", row.endpoint.name, message, agent=row.id)


def record_check(db: Session, action: RecordCheck) -> None:
    """Note what the agent's test inferences say; an event when it begins or ceases to be unfit by them."""
    row = _live(db, action.agent_id)
    if row is None:
        return
    was_failing = endpoints.health_check(row).failing
    row.health_check = msgspec.to_builtins(action.check)
    row.effect = msgspec.to_builtins(action.effect) if action.effect else None
    who = f"agent {row.id} of {row.endpoint.name} with {row.spec['version_ref']}"
    if action.check.failing and not was_failing:
        message = f"{who} fails its test inferences: {action.check.last_error or 'no reason given'}"
        _event(db, action.at, "agent.unhealthy", row.endpoint.name, message, agent=row.id)
    elif was_failing and not action.check.failing:
        message = f"{who} passes its tests again"
        _event(db, action.at, "agent.healthy", row.endpoint.name, message, agent=row.id)


def record_in_traffic(db: Session, action: RecordInTraffic) -> None:
    """Note when requests could reach the agent."""
    row = _live(db, action.agent_id)
    if row is not None:
        row.timings_s = {**row.timings_s, "gateway": action.gateway_s}


def fail_agent(db: Session, action: FailAgent, log_tail: tuple[str, ...]) -> None:
    """Give the agent up."""
    row = _live(db, action.agent_id)
    if row is None:
        return
    row.phase, row.ended_at = AgentPhase.FAILED, action.at
    row.reason, row.exit_code, row.log_tail = action.reason, action.exit_code, list(log_tail)
    message = f"agent {row.id} of {row.endpoint.name} with {row.spec['version_ref']} failed: {action.reason}"
    _event(
        db, action.at, "agent.failed", row.endpoint.name, message, agent=row.id, exit_code=action.exit_code
    )


def drain_agent(db: Session, agent_id: str) -> None:
    """Decide that the agent is to end."""
    row = _live(db, agent_id)
    if row is not None:
        row.phase = AgentPhase.DRAINING


def end_agent(db: Session, action: EndAgent) -> None:
    """Note that the agent has ended as it was told."""
    row = _live(db, action.agent_id)
    if row is not None:
        row.phase, row.ended_at, row.exit_code = AgentPhase.STOPPED, action.at, action.exit_code


def set_serving(db: Session, action: SetServing) -> None:
    """Decide which version the endpoint serves."""
    row = db.get(Endpoint, action.endpoint_id)
    if row is None or row.serving_version_id == action.version_id:
        return
    row.serving_version_id = action.version_id
    message = (
        f"{action.endpoint} now serves {action.version}"
        if action.version
        else f"{action.endpoint} serves nothing"
    )
    _event(db, action.at, "endpoint.switched", action.endpoint, message, version=action.version)


def move_rollout(db: Session, action: MoveRollout, protected_aliases: Collection[str]) -> None:
    """Decide a rollout's next state. Raises ConflictError when somebody moved it meanwhile: look again."""
    row = rollouts.locked(db, action.before.id)
    if row is None:
        return
    rollout_moves.record(
        db,
        row,
        action.before,
        action.after,
        actor=ACTOR,
        action=action.action,
        message=action.message,
        at=action.at,
        protected_aliases=protected_aliases,
    )


def queue_gates(db: Session, action: QueueGates) -> None:
    """Queue the job of the gates, once for a rollout."""
    row = rollouts.locked(db, action.rollout_id)
    if row is not None and row.revision == action.revision and row.gate_job_id is None:
        row.gate_job_id = gate_jobs.queue(db, row, action.at)


def remove_endpoint(db: Session, action: RemoveEndpoint) -> tuple[str, ...]:
    """Forget a deleted endpoint and its agents; return their ids."""
    row = db.get(Endpoint, action.endpoint_id)
    if row is None or row.goal != "deleted":
        return ()
    removed = db.execute(delete(Agent).where(Agent.endpoint_id == row.id).returning(Agent.id)).scalars().all()
    db.delete(row)
    _event(
        db,
        action.at,
        "endpoint.removed",
        action.endpoint,
        f"{action.endpoint} is gone, its agents have ended",
    )
    return tuple(removed)


def _live(db: Session, agent_id: str) -> Agent | None:
    """The agent's row unless it has ended: what has ended never changes again."""
    row = db.get(Agent, agent_id)
    return row if row is not None and row.phase in LIVE_PHASES else None


def _event(db: Session, at: float, action: str, endpoint: str, message: str, **details: Any) -> None:
    subject = f"endpoint/{endpoint}"
    db.add(Event(at=at, actor=ACTOR, action=action, subject=subject, message=message, details=details))
