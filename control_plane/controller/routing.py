"""Where an endpoint's requests go, and which agents the gateway must know for that. Pure.

Make before break: a version gets weight only when the gateway knows its agents and finds them healthy; a
member goes only when no weight, or another healthy member of its version, makes it unneeded.
"""

from __future__ import annotations

from control_plane.controller import staffing
from control_plane.controller.scene import Scene
from control_plane.controller.snapshot import AgentSeen
from control_plane.domain.rollout import IN_TRAFFIC
from control_plane.gateway.traffic_plan import (
    BEFORE_TRAFFIC,
    Backend,
    Comparison,
    Mirror,
    Replica,
    Sticky,
    TrafficPlan,
)


def choose_serving(scene: Scene) -> str | None:
    """The version that requests are to follow; the recorded one stays where nothing better can serve."""
    if not scene.running:
        return None
    wanted, recorded = scene.wanted.version_ref, scene.endpoint.serving
    if recorded != wanted and staffing.complete(scene):
        return wanted
    for version in _in_order_of_preference(scene):
        if scene.can_carry(version):
            return version
    return recorded


def weights(scene: Scene, serving: str | None) -> dict[str, float]:
    """Requests' weights by version: split between *serving* and a rollout's candidate as decided.

    Nothing while neither has an agent that may serve. Where one of them has none, the other carries all,
    if it is one that may: no request is lost that a healthy version could have served.
    """
    base = {serving: 1.0} if serving is not None and scene.can_carry(serving) else {}
    beside = scene.companion
    if beside is None or not scene.can_carry(beside.spec.version_ref):
        return base
    other = beside.spec.version_ref
    if not base:
        return {other: 1.0} if beside.stands_in or other in scene.weights else {}
    if beside.weight <= 0:
        return base
    if beside.weight >= 1:
        return {other: 1.0}
    return {str(serving): 1.0 - beside.weight, other: beside.weight}


def traffic_plan(scene: Scene, serving: str | None, gone: frozenset[str]) -> TrafficPlan:
    """The endpoint's backends and weights as the gateway is to have them next."""
    share = weights(scene, serving)
    comparison = _comparison(scene)
    versions = {agent.version for agent in scene.agents} | set(share) | set(scene.weights)
    backends = tuple(
        Backend(version, replicas, share.get(version, 0.0))
        for version in sorted(versions)
        if (replicas := _replicas(scene, version, share, gone))
    )
    return TrafficPlan(
        scene.name,
        backends,
        mirror=_mirror(scene),
        sticky=_sticky(scene) if comparison is not None else None,
        comparison=comparison,
    )


def followed(scene: Scene, version: str, share: dict[str, float]) -> bool:
    """Whether requests go to that version now, or are about to."""
    return version in scene.reached or version in share


def _mirror(scene: Scene) -> Mirror | None:
    """Copies for the candidate, while it can take them."""
    beside = scene.companion
    if beside is None or beside.mirror <= 0 or not scene.can_carry(beside.spec.version_ref):
        return None
    return Mirror(beside.spec.version_ref, beside.mirror)


def _comparison(scene: Scene) -> Comparison | None:
    """The two versions of a rollout, while the gateway knows healthy agents of both."""
    seen, beside = scene.endpoint.rollout, scene.companion
    if seen is None or beside is None:
        return None
    rollout = seen.rollout
    both = (rollout.stable, rollout.candidate)
    if not all(version in scene.reached or scene.gateway_agrees(version) for version in both):
        return None
    if not all(scene.servable_members(version) for version in both):
        return None
    return Comparison(
        rollout=rollout.id,
        stable=rollout.stable,
        candidate=rollout.candidate,
        tester_header=scene.endpoint.policy.tester_header,
        step=rollout.step_index if rollout.state in IN_TRAFFIC else BEFORE_TRAFFIC,
    )


def _sticky(scene: Scene) -> Sticky | None:
    policy = scene.endpoint.policy.sticky
    return Sticky(policy.kind, policy.name) if policy is not None else None


def _in_order_of_preference(scene: Scene) -> list[str]:
    """The recorded version (it stays while it can), then what has traffic, then the wanted one, then any that
    has had traffic: a version that never had any has not been let in yet."""
    served = [agent.version for agent in reversed(scene.active) if "gateway" in agent.timings_s]
    first = [scene.endpoint.serving] if scene.endpoint.serving else []
    found = dict.fromkeys([*first, *scene.weights, scene.wanted.version_ref, *served])
    if scene.endpoint.rollout is not None:
        excluded = scene.endpoint.rollout.excluded
        if excluded != scene.wanted.version_ref:
            found.pop(excluded, None)
    return list(found)


def _replicas(
    scene: Scene, version: str, share: dict[str, float], gone: frozenset[str]
) -> tuple[Replica, ...]:
    agents = [agent for agent in scene.agents if agent.version == version]
    members = [agent for agent in agents if _stays_member(scene, agent, share, gone)]
    if not members and followed(scene, version, share):
        known = scene.members(version)
        members = [agent for agent in agents if agent.id in known]
    return tuple(Replica(a.id, a.rest_address, a.grpc_address) for a in members)


def _stays_member(scene: Scene, agent: AgentSeen, share: dict[str, float], gone: frozenset[str]) -> bool:
    if not scene.servable(agent):
        return False
    if agent.id not in gone:
        return True
    return scene.is_member(agent) and not _may_leave_gateway(scene, agent, share, gone)


def _may_leave_gateway(scene: Scene, agent: AgentSeen, share: dict[str, float], gone: frozenset[str]) -> bool:
    if followed(scene, agent.version, share):
        return any(other.id not in gone for other in scene.servable_members(agent.version))
    idle = scene.active_requests(agent.version) == 0 and agent.unrouted_s >= scene.limits.settle_s
    return idle or agent.unrouted_s >= scene.limits.drain_timeout_s
