"""Everything the controller can do, as values. Pure.

Record* and Set*, Move*, Queue*, Fail*, End*, Drain*, Create*, Remove* change rows (decisions); Start*, Stop*,
Kill* touch processes; Publish* the gateway. Each is idempotent: a plan cut short anywhere is made again by
the next tick.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control_plane.controller.snapshot import ProcessSeen
from control_plane.domain.endpoint import AgentPhase, HealthCheck, ServingSpec
from control_plane.domain.rollout import Rollout
from control_plane.gateway.traffic_plan import TrafficPlan
from serving_agent.contract.status import OptionsEffect


@dataclass(frozen=True, slots=True)
class RecordProcess:
    """Note in the agent's row which process it is (adoption, or the row of a start cut short)."""

    agent_id: str
    process: ProcessSeen


@dataclass(frozen=True, slots=True)
class RecordPhase:
    """Note what the agent says of itself."""

    agent_id: str
    phase: AgentPhase
    timings_s: Mapping[str, float]
    device: str | None
    at: float


@dataclass(frozen=True, slots=True)
class RecordCheck:
    """Note what the agent says of its test inferences, and what its execution options change."""

    agent_id: str
    check: HealthCheck
    effect: OptionsEffect | None
    at: float


@dataclass(frozen=True, slots=True)
class RecordInTraffic:
    """Note how long after ready the first requests could reach the agent, in seconds."""

    agent_id: str
    gateway_s: float


@dataclass(frozen=True, slots=True)
class FailAgent:
    """The agent is given up: why, in one sentence."""

    agent_id: str
    reason: str
    exit_code: int | None
    at: float


@dataclass(frozen=True, slots=True)
class EndAgent:
    """The agent has ended as it was told."""

    agent_id: str
    exit_code: int | None
    at: float


@dataclass(frozen=True, slots=True)
class SetServing:
    """Decide which version an endpoint serves; None: none. Written before the routes follow."""

    endpoint_id: str
    endpoint: str
    version_id: str | None
    version: str | None
    at: float


@dataclass(frozen=True, slots=True)
class CreateAgent:
    """Decide that an agent shall be: its row, in phase STARTING."""

    agent_id: str
    endpoint_id: str
    spec: ServingSpec
    at: float


@dataclass(frozen=True, slots=True)
class StartAgent:
    """Start the process of an agent that has a row; nothing happens if it runs already."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class DrainAgent:
    """Decide that an agent which gets no requests any more shall end."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class StopAgent:
    """Ask the agent's process to end."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class KillAgent:
    """End the agent's process by force."""

    agent_id: str


@dataclass(frozen=True, slots=True)
class PublishBackends:
    """Make exactly these backends known to the gateway."""

    plans: tuple[TrafficPlan, ...]


@dataclass(frozen=True, slots=True)
class PublishRoutes:
    """Let requests follow these weights."""

    plans: tuple[TrafficPlan, ...]


@dataclass(frozen=True, slots=True)
class MoveRollout:
    """Decide a rollout's next state; refused when it is no longer *before*.

    action and message: the event that tells of it.
    """

    before: Rollout
    after: Rollout
    action: str
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class QueueGates:
    """Have the gates before traffic judge a started candidate, in a job."""

    rollout_id: str
    revision: int
    at: float


@dataclass(frozen=True, slots=True)
class RemoveEndpoint:
    """Forget a deleted endpoint and its agents; its events stay."""

    endpoint_id: str
    endpoint: str
    at: float


Action = (
    RecordProcess
    | RecordPhase
    | RecordCheck
    | RecordInTraffic
    | FailAgent
    | EndAgent
    | SetServing
    | CreateAgent
    | StartAgent
    | DrainAgent
    | StopAgent
    | KillAgent
    | PublishBackends
    | PublishRoutes
    | MoveRollout
    | QueueGates
    | RemoveEndpoint
)
