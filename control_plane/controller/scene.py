"""One endpoint with its agents, beside what the gateway says of it: the questions a plan asks. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from control_plane.controller import judgement
from control_plane.controller.snapshot import AgentSeen, Companion, EndpointSeen, Limits
from control_plane.domain import backoff
from control_plane.domain.endpoint import LIVE_PHASES, AgentPhase, EndpointGoal, ServingSpec
from control_plane.gateway.traffic_plan import GatewayState, also_reached


@dataclass(frozen=True, slots=True)
class Scene:
    """One endpoint as one tick sees it; its agents are judged already."""

    endpoint: EndpointSeen
    agents: tuple[AgentSeen, ...]
    """Live and ended ones, oldest first."""
    gateway: GatewayState
    limits: Limits
    now: float

    @property
    def name(self) -> str:
        """The endpoint's name."""
        return self.endpoint.name

    @property
    def running(self) -> bool:
        """Whether the operator wants it to serve."""
        return self.endpoint.goal is EndpointGoal.RUNNING

    @property
    def wanted(self) -> ServingSpec:
        """How the operator wants it served."""
        return self.endpoint.spec

    @property
    def companion(self) -> Companion | None:
        """The version that a rollout keeps beside the wanted one, while the endpoint is to run."""
        return self.endpoint.companion if self.running else None

    @property
    def reached(self) -> frozenset[str]:
        """Versions that requests or copies of them reach now, with a weight or without."""
        return frozenset(self.weights) | also_reached(self.gateway.extras.get(self.name, ""))

    @property
    def active(self) -> tuple[AgentSeen, ...]:
        """Agents that have not ended and were not told to."""
        return tuple(a for a in self.agents if a.phase in LIVE_PHASES and a.phase is not AgentPhase.DRAINING)

    @property
    def unfinished(self) -> tuple[AgentSeen, ...]:
        """Agents that have not ended."""
        return tuple(a for a in self.agents if a.phase in LIVE_PHASES)

    def of(self, spec: ServingSpec) -> tuple[AgentSeen, ...]:
        """Active agents of one spec."""
        return tuple(agent for agent in self.active if agent.spec == spec)

    def servable(self, agent: AgentSeen) -> bool:
        """Whether requests may go to that agent."""
        return judgement.servable(agent, self.limits)

    def unfit(self, agent: AgentSeen) -> bool:
        """Whether it has failed its own tests for so long that it is to be replaced."""
        return agent.failing_s >= self.limits.unfit_s

    def members(self, version: str) -> frozenset[str]:
        """Agents the gateway knows for that version."""
        state = self.gateway.backends.get((self.name, version))
        return state.agents if state else frozenset()

    def is_member(self, agent: AgentSeen) -> bool:
        """Whether the gateway knows that agent."""
        return agent.id in self.members(agent.version)

    @property
    def weights(self) -> dict[str, float]:
        """The weights above zero that requests follow now."""
        weights = self.gateway.weights.get(self.name, {})
        return {version: weight for version, weight in weights.items() if weight > 0}

    def active_requests(self, version: str) -> int:
        """Requests the gateway has under way at that version."""
        state = self.gateway.backends.get((self.name, version))
        return state.active_requests if state else 0

    def servable_members(self, version: str) -> tuple[AgentSeen, ...]:
        """Agents of that version that the gateway knows and that may serve."""
        members = self.members(version)
        return tuple(a for a in self.active if a.id in members and a.version == version and self.servable(a))

    def sound_members(self, version: str) -> tuple[AgentSeen, ...]:
        """Of its servable members, those whose own tests do not keep failing."""
        return tuple(a for a in self.servable_members(version) if not judgement.failing(a))

    def gateway_agrees(self, version: str) -> bool:
        """Whether the gateway finds as many members healthy as we find sound, and at least one."""
        state = self.gateway.backends.get((self.name, version))
        believed = len(self.sound_members(version))
        return state is not None and believed > 0 and state.healthy >= believed

    def can_carry(self, version: str) -> bool:
        """Whether requests may be sent to that version now."""
        return bool(self.servable_members(version)) and (
            version in self.weights or self.gateway_agrees(version)
        )

    def in_place(self, agents: Iterable[AgentSeen], version: str) -> bool:
        """Whether all of *agents* (one version's) may serve, are known to the gateway and healthy there."""
        members = {agent.id for agent in self.sound_members(version)}
        return all(agent.id in members for agent in agents) and self.gateway_agrees(version)

    def lives(self, spec: ServingSpec) -> tuple[backoff.Life, ...]:
        """The lives of all agents of one spec, for backoff."""
        return tuple(
            backoff.Life(a.ready_at, a.ended_at, a.phase is AgentPhase.FAILED, backoff.sound_until(a.check))
            for a in self.agents
            if a.spec == spec
        )

    def may_start(self, spec: ServingSpec) -> bool:
        """Whether backoff lets an agent of that spec start now."""
        return backoff.next_attempt_at(self.lives(spec), self.now) <= self.now
