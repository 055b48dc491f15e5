"""The agent's phase and its running requests; lives on the I/O loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from serving_agent.contract.manifest import Manifest
from serving_agent.contract.status import AgentStatus, Phase
from serving_agent.errors import NotReadyError

ANSWERING: Final[tuple[Phase, ...]] = ("ready", "draining")
"""Phases in which inference requests are answered."""
HANGING_TIMEOUTS: Final = 2
"""A request that has run for more than so many request timeouts hangs: nobody waits for it any more."""


class Health:
    """What `/health` and `/ready` tell. Phases only move forward."""

    def __init__(self, manifest: Manifest, busy_s: Callable[[], float]) -> None:
        """*busy_s* tells for how long the model has been running the present request, in seconds."""
        self._manifest = manifest
        self._busy_s = busy_s
        self._idle = asyncio.Event()
        self._idle.set()
        self.changed = asyncio.Event()
        """Set at every change of phase; whoever waits clears it."""
        self.phase: Phase = "starting"
        self.reason: str | None = None
        self.timings_s: dict[str, float] = {}
        self.in_flight = 0
        self.device: str | None = None

    def enter(self, phase: Phase, reason: str | None = None) -> None:
        """Move to *phase*. `draining` and `failed` are final: later start-up news does not undo them."""
        if self.phase in ("draining", "failed"):
            return
        self.phase, self.reason = phase, reason
        self.changed.set()

    @property
    def is_ready(self) -> bool:
        """Whether new clients should be sent here: not to a model that hangs on a request."""
        hanging_s = HANGING_TIMEOUTS * self._manifest.limits.request_timeout_s
        return self.phase == "ready" and self._busy_s() <= hanging_s

    def check_answering(self) -> None:
        """Raise NotReadyError unless requests are answered."""
        if self.phase not in ANSWERING:
            raise NotReadyError(f"the model is not ready: the agent is {self.phase}")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count one request as in flight."""
        self.in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if self.in_flight == 0:
                self._idle.set()

    async def idle(self) -> None:
        """Return once no request is in flight."""
        await self._idle.wait()

    def status(self) -> AgentStatus:
        """Return the body of `GET /health`."""
        return AgentStatus(
            phase=self.phase,
            agent_id=self._manifest.agent_id,
            version=self._manifest.version_ref,
            digest=self._manifest.digest,
            reason=self.reason,
            timings_s=dict(self.timings_s),
            in_flight=self.in_flight,
            busy_s=self._busy_s(),
            device=self.device,
        )
