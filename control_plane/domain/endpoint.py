"""Endpoints and agents as the controller's decisions see them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from control_plane.domain.options import DEFAULT
from serving_agent.contract.options import ServingOptions
from serving_agent.contract.status import CheckState


class EndpointGoal(StrEnum):
    """What an operator wants of an endpoint."""

    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


class EndpointHealth(StrEnum):
    """What an endpoint is doing, derived for people; never stored as a goal."""

    READY = "ready"
    STARTING = "starting"
    UPDATING = "updating"
    DEGRADED = "degraded"
    CRASH_LOOP = "crash loop"
    STOPPING = "stopping"
    STOPPED = "stopped"


class AgentPhase(StrEnum):
    """An agent's life, in order; FAILED and STOPPED are final."""

    STARTING = "starting"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"
    STOPPED = "stopped"


LIVE_PHASES = frozenset(
    {AgentPhase.STARTING, AgentPhase.LOADING, AgentPhase.WARMING, AgentPhase.READY, AgentPhase.DRAINING}
)
"""Phases in which a process exists or is about to."""


@dataclass(frozen=True, slots=True)
class ServingSpec:
    """How a version is run: everything that, when changed, needs new agents."""

    version_id: str
    version_ref: str
    """`model@N`."""
    handler: str
    device: str
    threads: int
    memory_bytes: int | None
    restart: int
    """Counts requested restarts: one more means the same version in new processes."""
    options: ServingOptions = DEFAULT
    """Batching, cache, execution and self-test of its agents."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """What an agent's own test inferences have found, as last recorded. Times are UTC seconds."""

    state: CheckState = "unknown"
    since: float | None = None
    """When it was first seen in that state."""
    last_error: str | None = None
    """Why a test failed last; kept after it has recovered."""
    last_error_at: float | None = None
    """When a test first failed so."""
    failing: bool = False
    """The verdict: the model has failed so many tests in a row that the agent says that it is not ready."""
    failing_since: float | None = None
    """When it was first seen to fail, in the run of failed tests that lasts; None after a healthy one."""
    passed: bool = False
    """Whether any of its tests was healthy."""
    recorded_at: float | None = None
    """When this was recorded."""


UNCHECKED: Final = HealthCheck()
"""What is known of an agent before its first test inference."""
