"""Which agents an endpoint keeps, which must leave, and which are missing. Pure."""

from __future__ import annotations

import math

from control_plane.controller import judgement
from control_plane.controller.scene import Scene
from control_plane.controller.snapshot import AgentSeen
from control_plane.domain.endpoint import AgentPhase, ServingSpec


def kept(scene: Scene, spec: ServingSpec | None = None) -> tuple[AgentSeen, ...]:
    """The agents of one spec that stay: fit ones first, then those in service, then the oldest.

    spec: None for the wanted one.
    """

    def rank(agent: AgentSeen) -> tuple[bool, bool, bool, float, str]:
        return (
            scene.unfit(agent),
            not scene.servable(agent),
            not scene.is_member(agent),
            agent.created_at,
            agent.id,
        )

    return tuple(sorted(scene.of(spec or scene.wanted), key=rank)[: scene.endpoint.replicas])


def complete(scene: Scene, spec: ServingSpec | None = None) -> bool:
    """Whether all replicas of one spec are in place at the gateway, each of them proven by its own tests.

    spec: None for the wanted one.
    """
    spec = spec or scene.wanted
    agents = kept(scene, spec)
    return (
        len(agents) == scene.endpoint.replicas
        and scene.in_place(agents, spec.version_ref)
        and all(judgement.proven(agent, scene.now) for agent in agents)
    )


def handed_over(scene: Scene) -> bool:
    """Whether the wanted agents, and a companion's, carry all traffic, so that older ones may go."""
    ours = {scene.wanted.version_ref}
    if scene.companion is not None:
        ours.add(scene.companion.spec.version_ref)
    return complete(scene) and bool(scene.weights) and set(scene.weights) <= ours


def leaving(scene: Scene, serving: str | None) -> frozenset[str]:
    """Ids of active agents that are to go, as soon as no request needs them.

    serving: the version that requests are to follow by this tick's decision.
    """
    if not scene.running:
        return frozenset(agent.id for agent in scene.active)
    stay = {agent.id for agent in kept(scene)}
    beside = scene.companion
    settled, done, replaced = complete(scene), handed_over(scene), _unfit_may_go(scene)
    old = _old_serving(scene, serving)

    if beside is not None:
        stay |= {agent.id for agent in kept(scene, beside.spec)}

    def goes(agent: AgentSeen) -> bool:
        if beside is not None and agent.spec == beside.spec:
            return agent.id not in stay and (complete(scene, beside.spec) or not scene.servable(agent))
        if agent.spec == scene.wanted:
            useless = not scene.servable(agent) or (replaced and scene.unfit(agent))
            return agent.id not in stay and (settled or useless)
        return done or agent.version != serving or (agent.ready_at is None and agent.spec != old)

    return frozenset(agent.id for agent in scene.active if goes(agent))


def _unfit_may_go(scene: Scene) -> bool:
    """Whether a surplus agent that is not fit may go: every fit one that stays is in place, or none is fit.

    In the latter case the surplus one is an attempt that has failed; another one follows after a pause.
    """
    fit = [agent for agent in kept(scene) if not scene.unfit(agent)]
    return not fit or scene.in_place(fit, scene.wanted.version_ref)


def missing(scene: Scene, serving: str | None, gone: frozenset[str]) -> tuple[ServingSpec, ...]:
    """Specs of the agents to start now, the most urgent first, one entry an agent; backoff is kept to.

    For an agent that is not fit to serve, another one starts beside it: one at a time.
    """
    if not scene.running:
        return ()
    lacking: list[ServingSpec] = []
    for spec, count in _targets(scene, serving, gone):
        present = sum(1 for agent in scene.of(spec) if agent.id not in gone)
        if present < count and scene.may_start(spec):
            lacking += [spec] * (count - present)
    return tuple(lacking)


def _targets(scene: Scene, serving: str | None, gone: frozenset[str]) -> tuple[tuple[ServingSpec, int], ...]:
    unfit = {agent.id for agent in scene.of(scene.wanted) if scene.unfit(agent)}
    to_replace = bool(unfit) and unfit.isdisjoint(gone)
    wanted = (scene.wanted, scene.endpoint.replicas + to_replace)
    beside = scene.companion
    companion = ((beside.spec, scene.endpoint.replicas),) if _is_restaffed(scene) and beside else ()
    old = _old_serving(scene, serving)
    if old is None or handed_over(scene):
        return (wanted, *companion)
    return (old, _old_count(scene, old)), wanted, *companion


def _is_restaffed(scene: Scene) -> bool:
    """Whether agents of the companion that end are replaced: also while nobody else carries the requests."""
    beside = scene.companion
    return beside is not None and (beside.restarts or set(scene.weights) == {beside.spec.version_ref})


def _old_serving(scene: Scene, serving: str | None) -> ServingSpec | None:
    """The spec that served before the wanted one, while it still has to."""
    current = {scene.wanted} if scene.companion is None else {scene.wanted, scene.companion.spec}
    older = [
        a for a in scene.agents if a.spec not in current and a.version == serving and a.ready_at is not None
    ]
    return max(older, key=lambda agent: agent.created_at).spec if older else None


def _old_count(scene: Scene, old: ServingSpec) -> int:
    """How many agents of the old spec must go on serving: as many as there were when the change began."""
    began = _change_began(scene, old)
    if began is None:
        return 0
    there = sum(
        1
        for a in scene.agents
        if a.spec == old
        and a.created_at < began
        and (a.ended_at is None or a.ended_at >= began)
        and not _relieved(scene, a)
    )
    return min(there, scene.endpoint.replicas)


def _change_began(scene: Scene, old: ServingSpec) -> float | None:
    """When the first agent of the wanted spec was created, not counting earlier times it was wanted."""
    oldest = min((agent.created_at for agent in scene.of(scene.wanted)), default=math.inf)
    own = [agent for agent in scene.agents if agent.spec == scene.wanted]
    past = [agent for agent in own if agent.created_at < oldest and _retired(scene, agent, old)]
    # one that still waits for its last request may outlast the start of its successors
    since = max((min(agent.ended_at or 0.0, oldest) for agent in past), default=0.0)
    return min(
        (a.created_at for a in own if a.created_at >= since and not _retired(scene, a, old)), default=None
    )


def _relieved(scene: Scene, agent: AgentSeen) -> bool:
    """Whether the agent was let go because the wanted ones had taken over, which they have kept up since."""
    ended = agent.ended_at
    return (
        agent.phase is AgentPhase.STOPPED
        and ended is not None
        and any(
            a.spec == scene.wanted
            and a.ready_at is not None
            and a.ready_at <= ended
            and (a in scene.active or (a.phase is AgentPhase.FAILED and (a.ended_at or ended) > ended))
            for a in scene.agents
        )
    )


def _retired(scene: Scene, agent: AgentSeen, old: ServingSpec) -> bool:
    """Whether the agent was let go while the old spec served on: not so when everything was shut down."""
    if agent.phase is AgentPhase.DRAINING:
        return True
    ended = agent.ended_at
    return (
        agent.phase is AgentPhase.STOPPED
        and ended is not None
        and any(
            a.spec == old and a.created_at <= ended and (a.ended_at is None or a.ended_at > ended)
            for a in scene.agents
        )
    )
