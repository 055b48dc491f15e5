"""Which agents an endpoint keeps, which must leave, and which are missing. Pure."""

from __future__ import annotations

from control_plane.controller.scene import Scene
from control_plane.controller.snapshot import AgentSeen
from control_plane.domain.endpoint import ServingSpec


def kept(scene: Scene) -> tuple[AgentSeen, ...]:
    """The agents of the wanted spec that stay: those in service first, then the oldest."""

    def rank(agent: AgentSeen) -> tuple[bool, bool, float, str]:
        return (not scene.servable(agent), not scene.is_member(agent), agent.created_at, agent.id)

    return tuple(sorted(scene.of(scene.wanted), key=rank)[: scene.endpoint.replicas])


def complete(scene: Scene) -> bool:
    """Whether all wanted replicas are in place at the gateway."""
    agents = kept(scene)
    return len(agents) == scene.endpoint.replicas and scene.in_place(agents, scene.wanted.version_ref)


def handed_over(scene: Scene) -> bool:
    """Whether the wanted agents carry all traffic, so that older ones may go."""
    return complete(scene) and set(scene.weights) == {scene.wanted.version_ref}


def leaving(scene: Scene, serving: str | None) -> frozenset[str]:
    """Ids of active agents that are to go, as soon as no request needs them.

    serving: the version that requests are to follow by this tick's decision.
    """
    if not scene.running:
        return frozenset(agent.id for agent in scene.active)
    stay = {agent.id for agent in kept(scene)}
    settled, done = complete(scene), handed_over(scene)
    old = _old_serving(scene, serving)

    def goes(agent: AgentSeen) -> bool:
        if agent.spec == scene.wanted:
            return agent.id not in stay and (settled or not scene.servable(agent))
        return done or agent.version != serving or (agent.ready_at is None and agent.spec != old)

    return frozenset(agent.id for agent in scene.active if goes(agent))


def missing(scene: Scene, serving: str | None, gone: frozenset[str]) -> tuple[ServingSpec, ...]:
    """Specs of the agents to start now, one entry an agent; backoff and start slots are kept to."""
    if not scene.running:
        return ()
    lacking: list[ServingSpec] = []
    for spec, count in _targets(scene, serving):
        present = sum(1 for agent in scene.of(spec) if agent.id not in gone)
        if present < count and scene.may_start(spec):
            lacking += [spec] * (count - present)
    under_way = sum(1 for agent in scene.active if agent.ready_at is None)
    return tuple(lacking[: max(0, scene.limits.start_slots - under_way)])


def _targets(scene: Scene, serving: str | None) -> tuple[tuple[ServingSpec, int], ...]:
    wanted = (scene.wanted, scene.endpoint.replicas)
    old = _old_serving(scene, serving)
    if old is None or handed_over(scene):
        return (wanted,)
    return (old, _old_count(scene, old)), wanted


def _old_serving(scene: Scene, serving: str | None) -> ServingSpec | None:
    """The spec that served before the wanted one, while it still has to."""
    older = [
        a for a in scene.agents if a.spec != scene.wanted and a.version == serving and a.ready_at is not None
    ]
    return max(older, key=lambda agent: agent.created_at).spec if older else None


def _old_count(scene: Scene, old: ServingSpec) -> int:
    """How many agents of the old spec must go on serving: as many as there were when the change began."""
    began = min((a.created_at for a in scene.agents if a.spec == scene.wanted), default=None)
    if began is None:
        return 0
    there = sum(
        1
        for a in scene.agents
        if a.spec == old and a.created_at < began and (a.ended_at is None or a.ended_at >= began)
    )
    return min(there, scene.endpoint.replicas)
