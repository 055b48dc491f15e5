"""The agent's phase and its running requests; lives on the I/O loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from serving_agent.contract.manifest import Manifest
from serving_agent.contract.status import AgentStatus, CheckStatus, OptionsEffect, Phase
from serving_agent.errors import NotReadyError, TooManyError
from serving_agent.health_checker import is_unhealthy

ANSWERING: Final[tuple[Phase, ...]] = ("ready", "draining")
"""Phases in which inference requests are answered."""
HANGING_GRACE_S: Final = 5.0
"""A request that has run for so much longer than the request timeout hangs: nobody waits for it any more."""


class Health:
    """What `/health` and `/ready` tell. Phases only move forward."""

    def __init__(self, manifest: Manifest, busy_s: Callable[[], float]) -> None:
        """*busy_s* tells for how long the model has been running the present request, in seconds."""
        self._manifest = manifest
        self._busy_s = busy_s
        self._idle = asyncio.Event()
        self._idle.set()
        self.phase: Phase = "starting"
        self.reason: str | None = None
        self.timings_s: dict[str, float] = {}
        self.in_flight = 0
        self.device: str | None = None
        self.check = CheckStatus()
        self.effect: OptionsEffect | None = None

    def enter(self, phase: Phase, reason: str | None = None) -> None:
        """Move to *phase*. `draining` and `failed` are final: later start-up news does not undo them."""
        if self.phase in ("draining", "failed"):
            return
        self.phase, self.reason = phase, reason

    @property
    def is_ready(self) -> bool:
        """Whether new clients should be sent here: not to a model that hangs, nor to one that fails tests."""
        return self.phase == "ready" and not self.is_hanging and not is_unhealthy(self.check)

    @property
    def is_hanging(self) -> bool:
        """Whether the model runs a request that nobody can be waiting for any more."""
        return self._busy_s() > self._manifest.limits.request_timeout_s + HANGING_GRACE_S

    def check_answering(self) -> None:
        """Raise NotReadyError unless requests are answered."""
        if self.phase not in ANSWERING:
            raise NotReadyError(f"the model is not ready: the agent is {self.phase}")
        if self.is_hanging:
            raise NotReadyError("the model hangs on an earlier request; try again elsewhere")

    def check_concurrency(self) -> None:
        """Raise TooManyError where more requests are in flight than the endpoint allows."""
        limit = self._manifest.options.max_concurrency
        if limit is not None and self.in_flight > limit:
            raise TooManyError(f"{limit} requests are being answered already, which is this endpoint's limit")

    def begin_request(self) -> None:
        """Count one request as in flight."""
        self.in_flight += 1
        self._idle.clear()

    def end_request(self) -> None:
        """Count it no longer."""
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
            check=self.check,
            effect=self.effect,
        )
