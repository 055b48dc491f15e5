"""States as icon, word and tone: never colour alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from control_plane.domain.endpoint import AgentPhase, EndpointHealth
from control_plane.domain.job import JobState
from control_plane.domain.upload import UploadState
from serving_agent.contract.status import CheckState

Tone = Literal["good", "busy", "warn", "bad", "idle"]


@dataclass(frozen=True, slots=True)
class Badge:
    """A state for people: *icon* is one character, *word* says it, *tone* chooses the colour."""

    icon: str
    word: str
    tone: Tone


_GOOD, _BUSY, _WARN, _BAD, _IDLE = ("●", "good"), ("◐", "busy"), ("▲", "warn"), ("✕", "bad"), ("○", "idle")
_LOOKS: Final[dict[str, tuple[str, str]]] = {
    EndpointHealth.READY: _GOOD,
    EndpointHealth.UPDATING: _BUSY,
    EndpointHealth.DEGRADED: _WARN,
    EndpointHealth.CRASH_LOOP: _BAD,
    EndpointHealth.STOPPING: _BUSY,
    EndpointHealth.STOPPED: _IDLE,
    AgentPhase.STARTING: _BUSY,
    AgentPhase.LOADING: _BUSY,
    AgentPhase.WARMING: _BUSY,
    AgentPhase.DRAINING: _BUSY,
    AgentPhase.FAILED: _BAD,
    JobState.QUEUED: _IDLE,
    JobState.RUNNING: _BUSY,
    JobState.SUCCEEDED: ("✓", "good"),
    JobState.CANCELLED: _IDLE,
    UploadState.RECEIVING: _BUSY,
    UploadState.CHECKING: _BUSY,
    UploadState.NEEDS_INPUT: ("?", "warn"),
    UploadState.REGISTERED: ("✓", "good"),
    UploadState.REJECTED: _BAD,
}


def badge(state: str) -> Badge:
    """The badge of an endpoint's health, an agent's phase, or a job's or upload's state."""
    icon, tone = _LOOKS.get(state, _IDLE)
    return Badge(icon, state.capitalize(), tone)  # type: ignore[arg-type]  # the table above holds tones only


_CHECKS: Final[dict[CheckState, Badge]] = {
    "healthy": Badge("●", "Healthy", "good"),
    "unhealthy": Badge("✕", "Unhealthy", "bad"),
    "error": Badge("▲", "Test not run", "warn"),
    "unknown": Badge("○", "Not tested", "idle"),
}


def check(state: CheckState) -> Badge:
    """The badge of what an agent's test inferences say."""
    return _CHECKS[state]


def archived() -> Badge:
    """The badge of an archived version."""
    return Badge("○", "Archived", "idle")
