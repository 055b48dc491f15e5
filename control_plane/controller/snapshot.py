"""What one tick sees: frozen values only, so that planning needs no clock and no I/O. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from control_plane.domain.endpoint import (
    UNCHECKED,
    AgentPhase,
    EndpointGoal,
    HealthCheck,
    ServingSpec,
)
from control_plane.domain.rollout import ENDED, Rollout, RolloutState, VerdictKind
from control_plane.domain.rollout_policy import DEFAULT as DEFAULT_POLICY
from control_plane.domain.rollout_policy import RolloutPolicy
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
    hang_s: float = 20.0
    """A candidate whose model has been running one request for this long is taken out of traffic, unless
    stable's is as busy."""
    start_failures: int = 3
    """A candidate whose agents have failed so often before it got traffic is given up."""
    verdict_stale_s: float = 30.0
    """A verdict older than this promotes nothing."""
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
class VerdictSeen:
    """What the evidence says of a candidate, as last written."""

    kind: VerdictKind
    code: str
    sentence: str
    at: float
    """When it was given, UTC seconds: what is old proves nothing."""


class GatesOutcome(StrEnum):
    """How far the gates before traffic are."""

    NOT_STARTED = "not_started"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    BROKEN = "broken"
    """Their job ended without a word on the candidate."""


@dataclass(frozen=True, slots=True)
class GatesSeen:
    """The gates' outcome; reason and code only where they failed."""

    outcome: GatesOutcome = GatesOutcome.NOT_STARTED
    reason: str = ""
    code: str = "gates"


@dataclass(frozen=True, slots=True)
class Companion:
    """A second version that is kept beside the wanted one."""

    spec: ServingSpec
    weight: float = 0.0
    """Its share of requests as decided, in [0, 1]."""
    mirror: float = 0.0
    """Share of requests copied to it."""
    restarts: bool = True
    """Whether agents of it that end are replaced."""
    stands_in: bool = False
    """Whether it may take every request while the wanted version has no agent that can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSeen:
    """An endpoint's newest rollout, and what is known beside it."""

    rollout: Rollout
    stable_spec: ServingSpec
    candidate_spec: ServingSpec
    verdict: VerdictSeen | None = None
    gates: GatesSeen = GatesSeen()
    frozen: str | None = None
    """The freeze window that is open now, in one sentence."""

    @property
    def excluded(self) -> str:
        """The version that gets requests by the rollout's decision alone: the one that is not stable."""
        rollout = self.rollout
        promoted = rollout.state is RolloutState.COMPLETED and rollout.promotes
        return rollout.stable if promoted else rollout.candidate

    @property
    def companion(self) -> Companion | None:
        """The version to keep beside the endpoint's own; None when that one stands alone."""
        rollout = self.rollout
        match rollout.state:
            case RolloutState.AWAITING_WAIVER:
                return None
            case RolloutState.STARTING | RolloutState.PREFLIGHT:
                return Companion(self.candidate_spec)
            case RolloutState.ROLLING_BACK:
                return Companion(self.candidate_spec, restarts=False)
            case RolloutState.COMPLETED if rollout.promotes and rollout.warm_until is not None:
                return Companion(self.stable_spec, stands_in=True)
            case RolloutState.ROLLED_BACK if rollout.warm_until is not None:
                return Companion(self.candidate_spec, restarts=False)
            case state if state in ENDED:
                return None
        return Companion(self.candidate_spec, rollout.weight, rollout.mirror, stands_in=rollout.weight > 0)


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
    policy: RolloutPolicy = DEFAULT_POLICY
    rollout: RolloutSeen | None = None
    """Its newest rollout while the controller has to do with it."""

    @property
    def companion(self) -> Companion | None:
        """The version that a rollout keeps beside the wanted one."""
        found = self.rollout.companion if self.rollout else None
        return found if found is not None and found.spec.version_ref != self.spec.version_ref else None


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
    reason: str | None = None
    """Why it failed, as its row has it."""
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
