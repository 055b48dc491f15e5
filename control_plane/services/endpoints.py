"""Endpoints: set their goal, look at them, ask them for a prediction."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from control_plane.domain.endpoint import AgentPhase, EndpointGoal
from control_plane.domain.goal import Wish, check_wish
from control_plane.domain.health import AgentFacts, EndpointFacts, assess
from control_plane.domain.options import Patch
from control_plane.domain.verdict import refusal
from control_plane.domain.views import AgentView, EndpointView, EventView, Page, Prediction
from control_plane.errors import ConflictError, NotFoundError
from control_plane.registry import endpoints
from control_plane.registry import session as sessions
from control_plane.registry.tables import Agent, Endpoint, Version
from control_plane.services import catalogs, events, gateway_client, goals, log_files, rollout_conflicts
from control_plane.services.context import Context
from serving_agent.contract.signature import Signature


def deploy(
    ctx: Context,
    name: str,
    version_ref: str,
    *,
    actor: str,
    replicas: int | None = None,
    threads: int | None = None,
    device: str | None = None,
    handler: str | None = None,
    memory_bytes: int | None = None,
    options: Patch | None = None,
    expected_revision: int | None = None,
    waiver: str | None = None,
) -> EndpointView:
    """Create the endpoint, or have it serve another version or other settings; it is then wanted running.

    None keeps a setting's present value (on creation: 1 replica, 1 thread, "auto", the version's handler, the
    default memory limit); memory_bytes 0 goes back to the default limit. options: what to change of the
    serving options, by their names in `ServingOptions`; null goes back to a default. Repeating it changes
    nothing.
    expected_revision: the revision the caller saw (0: there was no such endpoint); a ConflictError says what
    it is now and who changed it. Raises InvalidInputError, NotFoundError, and ConflictError for an archived
    version. waiver: why a variant that the optimisation lab rejected is deployed all the same; without it a
    RejectedError.
    """
    wish = Wish(
        replicas=replicas,
        threads=threads,
        device=device,
        handler=handler,
        memory_bytes=memory_bytes,
        options=options,
    )
    with sessions.write(ctx.engine) as session:
        goals.deploy(
            ctx,
            session,
            name,
            version_ref,
            wish,
            actor=actor,
            expected_revision=expected_revision,
            waiver=waiver,
        )
    return get(ctx, name)


def scale(
    ctx: Context, name: str, replicas: int, *, actor: str, expected_revision: int | None = None
) -> EndpointView:
    """Want *replicas* agents (1 to 64). Idempotent."""
    check_wish(Wish(replicas=replicas), cpu_count=1)
    with sessions.write(ctx.engine) as session:
        row = _editable(session, name, expected_revision)
        goal = replace(goals.goal_of(row), replicas=replicas)
        did = f"scaled {name} from {row.replicas} to {replicas}"
        goals.change(session, row, goal, actor=actor, action="endpoint.scaled", did=did)
    return get(ctx, name)


def restart(ctx: Context, name: str, *, actor: str, expected_revision: int | None = None) -> EndpointView:
    """Replace every agent by a new one of the same version, new ones ready first."""
    with sessions.write(ctx.engine) as session:
        row = _editable(session, name, expected_revision)
        rollout_conflicts.refuse(session, name, f"A restart of {name}")
        if row.goal != EndpointGoal.RUNNING:
            raise ConflictError(f"{name} is stopped", next_step="Start it instead.")
        goal = replace(goals.goal_of(row), restart=row.restart + 1)
        goals.change(session, row, goal, actor=actor, action="endpoint.restarted", did=f"restarted {name}")
    return get(ctx, name)


def stop(ctx: Context, name: str, *, actor: str, expected_revision: int | None = None) -> EndpointView:
    """Want no agent; the endpoint keeps its settings, and a rollout of it is aborted. Idempotent."""
    with sessions.write(ctx.engine) as session:
        row = _editable(session, name, expected_revision)
        _end_rollout(ctx, session, name, actor, f"{actor} stopped {name}")
        goal = replace(goals.goal_of(row), state=EndpointGoal.STOPPED)
        goals.change(session, row, goal, actor=actor, action="endpoint.stopped", did=f"stopped {name}")
    return get(ctx, name)


def start(ctx: Context, name: str, *, actor: str, expected_revision: int | None = None) -> EndpointView:
    """Want a stopped endpoint running again. Idempotent."""
    with sessions.write(ctx.engine) as session:
        row = _editable(session, name, expected_revision)
        goal = replace(goals.goal_of(row), state=EndpointGoal.RUNNING)
        goals.change(session, row, goal, actor=actor, action="endpoint.started", did=f"started {name}")
    return get(ctx, name)


def delete(ctx: Context, name: str, *, actor: str, expected_revision: int | None = None) -> None:
    """Want the endpoint gone: the controller drains its agents and removes it; a rollout of it is aborted.

    Idempotent until it is gone.
    """
    with sessions.write(ctx.engine) as session:
        row = goals.locked(session, name, expected_revision)
        _end_rollout(ctx, session, name, actor, f"{actor} deleted {name}")
        goal = replace(goals.goal_of(row), state=EndpointGoal.DELETED)
        goals.change(session, row, goal, actor=actor, action="endpoint.deleted", did=f"deleted {name}")


def get(ctx: Context, name: str) -> EndpointView:
    """One endpoint with its live agents and the latest failed one. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        return _views(ctx, session, [_found(session, name)])[0]


def list_all(ctx: Context) -> tuple[EndpointView, ...]:
    """All endpoints by name, in a constant number of queries."""
    with sessions.read(ctx.engine) as session:
        return _views(ctx, session, endpoints.every(session))


def agents(ctx: Context, *, endpoint: str | None = None, limit: int = 100) -> tuple[AgentView, ...]:
    """Agents of all phases, newest first."""
    with sessions.read(ctx.engine) as session:
        rows = endpoints.agents(session, endpoint=endpoint, limit=max(1, min(limit, 1000)))
        return tuple(agent_view(row) for row in rows)


def agent_log(ctx: Context, agent_id: str, *, lines: int = 200) -> tuple[str, ...]:
    """The last lines of an agent's log, oldest first. Raises NotFoundError for an unknown agent."""
    with sessions.read(ctx.engine) as session:
        row = session.get(Agent, agent_id)
    if row is None:
        raise NotFoundError(f"There is no agent {agent_id[:80]!r}")
    return log_files.tail(ctx.settings.logs_dir / "agents" / f"{row.id}.log", lines)


def history(ctx: Context, name: str, *, page: int = 1, page_size: int = 50) -> Page[EventView]:
    """What happened to the endpoint, newest first; also after it was deleted."""
    return events.search(ctx, subject=goals.subject(name), page=page, page_size=page_size)


def signature(ctx: Context, name: str) -> Signature:
    """What clients of the endpoint send and get: its version's signature as its handler serves it."""
    with sessions.read(ctx.engine) as session:
        row = _found(session, name)
        version = session.get_one(Version, row.serving_version_id or row.version_id)
        own = msgspec.convert(version.signature, Signature)
        return catalogs.served_signature(row.handler, own, tuple(version.labels))


def predict(ctx: Context, name: str, body: Mapping[str, Any]) -> Prediction:
    """Send *body* (`{"input": …}`) to the endpoint through the gateway, as any client would.

    An answer that says no is an answer: it comes back with its status. Raises UnavailableError when the
    gateway itself does not answer, InvalidInputError when *body* is not JSON.
    """
    return gateway_client.predict(ctx.settings.gateway_url, name, body)


def agent_view(row: Agent) -> AgentView:
    """*row* as services return it."""
    return AgentView(
        id=row.id,
        endpoint=row.endpoint.name,
        version_ref=row.version.ref,
        phase=row.phase,
        pid=row.pid,
        device=row.device,
        timings_s=row.timings_s,
        reason=row.reason,
        exit_code=row.exit_code,
        log_tail=tuple(row.log_tail or ()),
        created_at=row.created_at,
        ready_at=row.ready_at,
        ended_at=row.ended_at,
        check=endpoints.health_check(row),
        effect=endpoints.effect(row),
    )


def _found(session: Session, name: str) -> Endpoint:
    row = endpoints.find(session, name)
    if row is None:
        raise NotFoundError(f"There is no endpoint {name[:80]!r}", next_step="See the list of endpoints.")
    return row


def _editable(session: Session, name: str, expected_revision: int | None) -> Endpoint:
    row = goals.locked(session, name, expected_revision)
    if row.goal == EndpointGoal.DELETED:
        raise ConflictError(f"{name} is being deleted", next_step="Deploy it anew.")
    return row


def _end_rollout(ctx: Context, session: Session, name: str, actor: str, why: str) -> None:
    rollout_conflicts.end_with_endpoint(session, ctx.settings, name, actor=actor, why=why, at=time.time())


def _views(ctx: Context, session: Session, rows: Sequence[Endpoint]) -> tuple[EndpointView, ...]:
    by_endpoint: defaultdict[str, list[Agent]] = defaultdict(list)
    for agent in endpoints.shown_agents(session, [row.id for row in rows]):
        by_endpoint[agent.endpoint_id].append(agent)
    now = time.time()
    return tuple(_view(ctx, row, by_endpoint[row.id], now) for row in rows)


def _view(ctx: Context, row: Endpoint, shown: Sequence[Agent], now: float) -> EndpointView:
    serving_ref = row.serving_version.ref if row.serving_version else None
    health = assess(
        EndpointFacts(
            goal=row.goal,
            replicas=row.replicas,
            version_ref=row.version.ref,
            serving_ref=serving_ref,
            agents=_facts(row, shown),
            now=now,
        )
    )
    return EndpointView(
        name=row.name,
        goal=row.goal,
        health=health.word,
        sentence=health.sentence,
        version_ref=row.version.ref,
        serving_ref=serving_ref,
        replicas=row.replicas,
        ready=health.ready,
        handler=row.handler,
        device=row.device,
        threads=row.threads,
        memory_bytes=row.memory_bytes,
        options=endpoints.options(row),
        revision=row.revision,
        url=f"{ctx.settings.gateway_url}/e/{row.name}",
        agents=_live_and_latest_failed(shown),
        runs_program=catalogs.is_program(row.version.format),
        warnings=_warnings(row),
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _warnings(row: Endpoint) -> tuple[str, ...]:
    """One sentence for each version of the endpoint that the gate refuses by its latest word."""
    known = {version.id: version for version in (row.version, row.serving_version) if version is not None}
    said = (refusal(version.ref, version.verdict) for version in known.values())
    return tuple(sentence for sentence in said if sentence)


def _facts(row: Endpoint, shown: Sequence[Agent]) -> tuple[AgentFacts, ...]:
    wanted = endpoints.wanted_spec(row)
    return tuple(
        AgentFacts(
            id=agent.id,
            version_ref=agent.version.ref,
            phase=agent.phase,
            current=endpoints.spec_of(agent) == wanted,
            in_traffic="gateway" in agent.timings_s,
            reason=agent.reason,
            ready_at=agent.ready_at,
            ended_at=agent.ended_at,
            check=endpoints.health_check(agent),
        )
        for agent in shown
    )


def _live_and_latest_failed(shown: Sequence[Agent]) -> tuple[AgentView, ...]:
    failed = next((agent for agent in shown if agent.phase == AgentPhase.FAILED), None)
    return tuple(agent_view(agent) for agent in shown if agent.phase != AgentPhase.FAILED or agent is failed)
