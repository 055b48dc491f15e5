"""The controller's decisions: a snapshot in, the actions of one tick out. Pure.

Order of actions: what was learned of processes, decisions, processes to start, to drain and to end, then the
gateway, then what may be forgotten. No action relies on an earlier one of the same plan having reached the
gateway: each step of make-before-break is planned only after a snapshot confirms the one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from control_plane.controller import judgement, rollout_plan, routing, staffing
from control_plane.controller.actions import (
    Action,
    CreateAgent,
    DrainAgent,
    FailAgent,
    KillAgent,
    PublishBackends,
    PublishRoutes,
    RecordInTraffic,
    RemoveEndpoint,
    SetServing,
    StartAgent,
    StopAgent,
)
from control_plane.controller.scene import Scene
from control_plane.controller.snapshot import AgentSeen, EndpointSeen, Limits, Snapshot
from control_plane.domain.endpoint import LIVE_PHASES, AgentPhase, EndpointGoal, ServingSpec
from control_plane.gateway.traffic_plan import GatewayState, TrafficPlan, extras


def plan(snapshot: Snapshot) -> tuple[Action, ...]:
    """Return what to do now, in order; an empty plan means that everything is as it should be."""
    judged = [judgement.judge(agent, snapshot.now, snapshot.limits) for agent in snapshot.agents]
    learned = tuple(action for _, actions in judged for action in actions)
    agents = tuple(agent for agent, _ in judged)
    seen = tuple(_scene(snapshot, endpoint, agents) for endpoint in snapshot.endpoints)
    decisions = tuple(rollout_plan.decide(scene) for scene in seen)
    scenes = tuple(map(rollout_plan.applied, seen, decisions))
    choices = tuple((scene, *_choose(scene)) for scene in scenes)
    ids = iter(snapshot.fresh_ids[: _free_slots(snapshot.limits, scenes)])
    return (
        *learned,
        *(action for scene in scenes for action in _arrivals(scene)),
        *(decision for decision in decisions if decision is not None),
        *(action for scene, serving, _ in choices for action in _decision(scene, serving)),
        *(action for scene, serving, gone in choices for action in _starts(scene, serving, gone, ids)),
        *(action for scene, _, gone in choices for action in _departures(scene, gone)),
        *_force(snapshot, agents),
        *_publish(snapshot.gateway, choices),
        *(action for scene in scenes for action in _removal(scene)),
    )


Choice = tuple[Scene, str | None, frozenset[str]]


def _free_slots(limits: Limits, scenes: Iterable[Scene]) -> int:
    """How many agents may be created now: the start slots are one pool for all endpoints."""
    under_way = sum(1 for scene in scenes for agent in scene.active if agent.ready_at is None)
    return max(0, limits.start_slots - under_way)


def _scene(snapshot: Snapshot, endpoint: EndpointSeen, agents: Iterable[AgentSeen]) -> Scene:
    own = sorted((a for a in agents if a.endpoint_id == endpoint.id), key=lambda a: (a.created_at, a.id))
    return Scene(endpoint, tuple(own), snapshot.gateway, snapshot.limits, snapshot.now)


def _choose(scene: Scene) -> tuple[str | None, frozenset[str]]:
    """The version to serve and the agents to let go."""
    if not scene.gateway.live and scene.running:
        serving = scene.endpoint.serving
    else:
        serving = routing.choose_serving(scene)
    return serving, staffing.leaving(scene, serving)


def _arrivals(scene: Scene) -> Iterator[Action]:
    """Note the time from ready to first possible request."""
    for version in scene.weights:
        if not scene.gateway_agrees(version):
            continue
        for agent in scene.servable_members(version):
            if "gateway" not in agent.timings_s and agent.ready_at is not None:
                yield RecordInTraffic(agent.id, max(0.0, scene.now - agent.ready_at))


def _decision(scene: Scene, serving: str | None) -> Iterator[Action]:
    if serving == scene.endpoint.serving:
        return
    ids = {agent.version: agent.spec.version_id for agent in scene.agents}
    version_id = ids[serving] if serving is not None else None
    yield SetServing(scene.endpoint.id, scene.name, version_id, serving, scene.now)


def _starts(scene: Scene, serving: str | None, gone: frozenset[str], ids: Iterator[str]) -> Iterator[Action]:
    for agent in scene.active:
        if _never_started(agent) and agent.id not in gone:
            yield StartAgent(agent.id)
    specs: tuple[ServingSpec, ...] = staffing.missing(scene, serving, gone)
    for agent_id, spec in zip(islice(ids, len(specs)), specs, strict=False):
        yield CreateAgent(agent_id, scene.endpoint.id, spec, scene.now)
        yield StartAgent(agent_id)


def _never_started(agent: AgentSeen) -> bool:
    return agent.process is None and agent.recorded is None and agent.exit is None


def _departures(scene: Scene, gone: frozenset[str]) -> Iterator[Action]:
    for agent in scene.active:
        if agent.id in gone and _unneeded(scene, agent):
            if scene.running and agent.spec in _kept_specs(scene) and scene.unfit(agent):
                yield FailAgent(agent.id, judgement.verdict(agent), None, scene.now)
                continue
            yield DrainAgent(agent.id)
            if agent.process is not None:
                yield StopAgent(agent.id)
    for agent in scene.unfinished:
        if agent.phase is AgentPhase.DRAINING:
            yield from _end(scene, agent)


def _kept_specs(scene: Scene) -> tuple[ServingSpec, ...]:
    return (scene.wanted,) if scene.companion is None else (scene.wanted, scene.companion.spec)


def _unneeded(scene: Scene, agent: AgentSeen) -> bool:
    """Whether an agent that leaves has no request left and can get none."""
    if agent.ready_at is None:
        return True  # the gateway has never heard of it
    if not scene.gateway.live or scene.is_member(agent):
        return False
    if agent.unrouted_s >= scene.limits.drain_timeout_s:
        return True
    in_flight = agent.status.in_flight if agent.status else 0
    return in_flight == 0 and agent.unrouted_s >= scene.limits.settle_s


def _end(scene: Scene, agent: AgentSeen) -> Iterator[Action]:
    """Repeat the request to end, and end it by force when it takes too long."""
    limits = scene.limits
    patience = limits.end_grace_s + (limits.drain_timeout_s if agent.ready_at is not None else 0.0)
    if agent.draining_s > patience:
        yield KillAgent(agent.id)
    elif agent.status is None or agent.status.phase != "draining":
        yield StopAgent(agent.id)


def _force(snapshot: Snapshot, agents: Iterable[AgentSeen]) -> Iterator[Action]:
    """End processes that nothing wants: of agents given up, and of agents without a row."""
    known = {member for state in snapshot.gateway.backends.values() for member in state.agents}
    for agent in agents:
        if agent.process is not None and agent.phase not in LIVE_PHASES and agent.id not in known:
            yield KillAgent(agent.id)
    for agent_id in snapshot.strays:
        if snapshot.gateway.live and agent_id not in known:
            yield KillAgent(agent_id)


def _publish(gateway: GatewayState, choices: Iterable[Choice]) -> Iterator[Action]:
    if not gateway.live:
        return
    plans = tuple(routing.traffic_plan(*choice) for choice in choices)
    # routes first: they rely on confirmed backends only, and may free one that no endpoint names any more
    if _wanted_weights(plans) != _present_weights(gateway) or _wanted_extras(plans) != _present_extras(
        gateway
    ):
        yield PublishRoutes(plans)
    if _wanted_backends(plans) != {key: state.agents for key, state in gateway.backends.items()}:
        yield PublishBackends(plans)


def _wanted_backends(plans: Iterable[TrafficPlan]) -> dict[tuple[str, str], frozenset[str]]:
    return {
        (plan.endpoint, backend.version): frozenset(replica.agent_id for replica in backend.replicas)
        for plan in plans
        for backend in plan.backends
    }


def _wanted_weights(plans: Iterable[TrafficPlan]) -> dict[str, dict[str, float]]:
    return {plan.endpoint: {b.version: b.weight for b in plan.backends if b.weight > 0} for plan in plans}


def _wanted_extras(plans: Iterable[TrafficPlan]) -> dict[str, str]:
    return {plan.endpoint: found for plan in plans if (found := extras(plan))}


def _present_extras(gateway: GatewayState) -> dict[str, str]:
    return {endpoint: found for endpoint, found in gateway.extras.items() if found}


def _present_weights(gateway: GatewayState) -> dict[str, dict[str, float]]:
    return {
        endpoint: {version: weight for version, weight in weights.items() if weight > 0}
        for endpoint, weights in gateway.weights.items()
    }


def _removal(scene: Scene) -> Iterator[Action]:
    if scene.endpoint.goal is not EndpointGoal.DELETED or scene.unfinished:
        return
    at_gateway = any(endpoint == scene.name for endpoint, _ in scene.gateway.backends)
    if scene.gateway.live and not at_gateway and not scene.weights:
        yield RemoveEndpoint(scene.endpoint.id, scene.name, scene.now)
