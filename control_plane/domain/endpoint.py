"""Endpoints and agents as the controller's decisions see them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
