"""Where an endpoint's requests go, and which agents the gateway must know for that. Pure.

Make before break: a version gets weight only when the gateway knows its agents and finds them healthy; a
member goes only when no weight, or another healthy member of its version, makes it unneeded.
"""

from __future__ import annotations

from control_plane.controller import staffing
from control_plane.controller.scene import Scene
from control_plane.controller.snapshot import AgentSeen
from control_plane.gateway.traffic_plan import Backend, Replica, TrafficPlan


def choose_serving(scene: Scene) -> str | None:
    """The version that requests are to follow; the recorded one stays where nothing better can serve."""
    if not scene.running:
        return None
    wanted, recorded = scene.wanted.version_ref, scene.endpoint.serving
    if recorded != wanted and staffing.complete(scene):
        return wanted
    for version in _in_order_of_preference(scene):
        if scene.servable_members(version) and (version in scene.weights or scene.gateway_agrees(version)):
            return version
    return recorded


def weights(scene: Scene, serving: str | None) -> dict[str, float]:
    """Requests' weights by version: all to *serving*, or nothing while it has no agent that may serve."""
    if serving is None or not scene.servable_members(serving):
        return {}
    if serving in scene.weights or scene.gateway_agrees(serving):
        return {serving: 1.0}
    return {}


def traffic_plan(scene: Scene, serving: str | None, gone: frozenset[str]) -> TrafficPlan:
    """The endpoint's backends and weights as the gateway is to have them next."""
    share = weights(scene, serving)
    versions = {agent.version for agent in scene.agents} | set(share) | set(scene.weights)
    backends = tuple(
        Backend(version, replicas, share.get(version, 0.0))
        for version in sorted(versions)
        if (replicas := _replicas(scene, version, share, gone))
    )
    return TrafficPlan(scene.name, backends)


def followed(scene: Scene, version: str, share: dict[str, float]) -> bool:
    """Whether requests go to that version now, or are about to."""
    return version in scene.weights or version in share


def _in_order_of_preference(scene: Scene) -> list[str]:
    """The recorded version (it stays while it can), then what has traffic, then the wanted one, then any."""
    newest = [agent.version for agent in reversed(scene.active)]
    first = [scene.endpoint.serving] if scene.endpoint.serving else []
    return list(dict.fromkeys([*first, *scene.weights, scene.wanted.version_ref, *newest]))


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
