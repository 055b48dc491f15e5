"""What an agent says of itself on `GET /health`."""

from __future__ import annotations

from typing import Literal

import msgspec

Phase = Literal["starting", "loading", "warming", "ready", "draining", "failed"]
CheckState = Literal["unknown", "healthy", "unhealthy", "error"]


class CheckStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the health checker's test inferences have found."""

    state: CheckState = "unknown"
    """`healthy`: the last test was answered; `unhealthy`: the model failed on it or its answer broke the
    signature; `error`: it could not be run in time; `unknown`: none has run yet."""
    at: float | None = None
    """When the last test ended, in seconds since the epoch."""
    duration_s: float | None = None
    """How long the last answered test took."""
    failures: int = 0
    """Unhealthy tests since the last healthy one; an `error` neither adds to them nor ends them."""
    last_error: str | None = None
    """Why a test failed last, in one sentence; kept after it has recovered."""
    last_error_at: float | None = None
    """When that was, in seconds since the epoch."""


class OptionsEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What the execution options change, measured on the example inputs when the agent started."""

    plain_s: float
    """Median seconds of one run with every option off."""
    optimized_s: float
    """Median seconds of one run as it is served."""
    largest_difference: float
    """Largest absolute difference between the two runs' floating-point outputs, where both are finite."""


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON body of `GET /health` on an agent's REST address (HTTP 200 as long as the process lives)."""

    phase: Phase
    agent_id: str
    version: str
    """`model@N`."""
    digest: str
    reason: str | None = None
    """Why the phase is `failed`, in one sentence."""
    timings_s: dict[str, float] = {}
    """Seconds spent in each finished start-up stage: `verify`, `import`, `load`, `warm`."""
    in_flight: int = 0
    """Requests accepted and not yet answered."""
    busy_s: float = 0.0
    """For how long the model has been running the present request, in seconds; 0 when it is idle."""
    device: str | None = None
    """Where the model lives, once loaded."""
    check: CheckStatus = CheckStatus()
    effect: OptionsEffect | None = None
    """Set where execution options are on."""
