"""What an agent says of itself on `GET /health`."""

from __future__ import annotations

from typing import Literal

import msgspec

Phase = Literal["starting", "loading", "warming", "ready", "draining", "failed"]


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
    """Seconds spent in each finished start-up stage: `import`, `load`, `warm`."""
    in_flight: int = 0
    """Requests accepted and not yet answered."""
    busy_s: float = 0.0
    """For how long the model has been running the present request, in seconds; 0 when it is idle."""
    device: str | None = None
    """Where the model lives, once loaded."""
