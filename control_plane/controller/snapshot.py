"""What one tick sees: frozen values only, so that planning needs no clock and no I/O. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.domain.endpoint import (
    UNCHECKED,
    AgentPhase,
    EndpointGoal,
    HealthCheck,
    ServingSpec,
)
from control_plane.gateway.traffic_plan import GatewayState
from serving_agent.contract import manifest
from serving_agent.contract.status import AgentStatus, OptionsEffect


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds the plan keeps to; durations in seconds."""

    start_timeout_s: float = 180.0
    """From process start to ready."""
    drain_timeout_s: float = 30.0
    """Longest wait for running requests of an agent that leaves."""
    settle_s: float = 0.1
    """Least time without traffic before an agent counts as idle: requests under way when the routes moved."""
    silent_unready_s: float = 5.0
    """An agent whose /health is silent for this long no longer counts as ready."""
    silent_kill_s: float = 30.0
    """An agent that was ready and is silent for this long is ended and replaced."""
    busy_kill_s: float = 2 * manifest.Limits().request_timeout_s + 30.0
    """An agent whose model has been running one request for longer is ended and replaced: the agent itself
    says that it is not ready 5 s after one request timeout, and traffic gets the rest to leave."""
    unfit_s: float = 60.0
    """An agent whose tests have failed again and again for this long is replaced."""
    end_grace_s: float = 5.0
    """Beyond its drain timeout an agent that was told to end gets this long before it is killed."""
    start_slots: int = 4
    """Agents that may be on their way to ready at the same time."""


@dataclass(frozen=True, slots=True)
class EndpointSeen:
    """An endpoint's row: the goal, and the version it serves by the controller's last decision."""

    id: str
    name: str
    goal: EndpointGoal
    replicas: int
    spec: ServingSpec
    serving: str | None
    """`model@N`, or None before anything served."""


@dataclass(frozen=True, slots=True)
class ProcessSeen:
    """A running process of an agent, named once and for all by pid and creation time (epoch seconds)."""

    pid: int
    started_at: float


@dataclass(frozen=True, slots=True)
class ExitSeen:
    """How an agent's process ended, as far as it is known."""

    reason: str
    """One sentence."""
    code: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSeen:
    """An agent's row beside what is true of its process now."""

    id: str
    endpoint_id: str
    spec: ServingSpec
    phase: AgentPhase
    recorded: ProcessSeen | None
    """The process its row names."""
    rest_address: str
    grpc_address: str
    timings_s: Mapping[str, float]
    created_at: float
    ready_at: float | None = None
    ended_at: float | None = None
    process: ProcessSeen | None = None
    """The process that runs now, None when there is none."""
    exit: ExitSeen | None = None
    """How its process ended; only when it did."""
    status: AgentStatus | None = None
    """Its answer to /health in this tick, None when it did not answer."""
    silent_s: float = 0.0
    """How long it has not answered while its process lives."""
    unrouted_s: float = 0.0
    """How long no traffic has followed to it: not a member, or its version without weight."""
    check: HealthCheck = UNCHECKED
    """What its row says of its test inferences."""
    effect: OptionsEffect | None = None
    """What its row says that its execution options change."""
    failing_s: float = 0.0
    """How long its tests have failed again and again, as this controller saw it."""
    draining_s: float = 0.0
    """How long it has been in phase DRAINING, as this controller saw it."""

    @property
    def version(self) -> str:
        """`model@N`."""
        return self.spec.version_ref


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one plan is made from."""

    now: float
    """UTC seconds since the epoch."""
    endpoints: tuple[EndpointSeen, ...]
    agents: tuple[AgentSeen, ...]
    """All live agents, and the latest ended ones of each endpoint."""
    strays: tuple[str, ...]
    """Ids of running agents that have no row."""
    gateway: GatewayState
    fresh_ids: tuple[str, ...]
    """Unused agent ids for this plan."""
    limits: Limits = Limits()
