"""Test inferences on a schedule: the same way through queue, batch and model that clients' requests take."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import numpy as np

from serving_agent.contract.status import CheckState, CheckStatus
from serving_agent.datatypes import FLOATS
from serving_agent.errors import AgentError, DeadlineError, ModelError, UnavailableError
from serving_agent.messages import OutputTensor

logger = logging.getLogger(__name__)

UNHEALTHY_FAILURES: Final = 3
"""Failed tests in a row after which an agent is not ready: one may be bad luck, three are not."""

Infer = Callable[[], Awaitable[tuple[OutputTensor, ...]]]


def judged(error: AgentError) -> CheckState:
    """Return what a test that ended in *error* says of the agent. Pure.

    A model that fails on inputs it could take when it was started is unhealthy; a test that was not run or
    not answered in time says nothing of its answers.
    """
    return "error" if isinstance(error, DeadlineError | UnavailableError) else "unhealthy"


def after(
    before: CheckStatus, state: CheckState, now_s: float, *, duration_s: float | None = None, error: str = ""
) -> CheckStatus:
    """Return the status after one more test. Pure."""
    if state == "healthy":
        return msgspec.structs.replace(before, state=state, at=now_s, duration_s=duration_s, failures=0)
    return msgspec.structs.replace(
        before,
        state=state,
        at=now_s,
        failures=before.failures + (state == "unhealthy"),
        last_error=error,
        last_error_at=now_s,
    )


def non_finite(outputs: tuple[OutputTensor, ...]) -> str | None:
    """Return the name of an output that holds NaN or infinite values; None where none does. Pure."""
    for output in outputs:
        if output.datatype in FLOATS and not np.isfinite(output.array).all():
            return output.name
    return None


def is_unhealthy(status: CheckStatus) -> bool:
    """Tell whether so many tests in a row have failed that clients should go elsewhere. Pure."""
    return status.failures >= UNHEALTHY_FAILURES


class HealthChecker:
    """Runs *infer* every *interval_s* seconds and tells *on_status* what that showed."""

    def __init__(self, infer: Infer, interval_s: float, on_status: Callable[[CheckStatus], None]) -> None:
        self._infer = infer
        self._interval_s = interval_s
        self._on_status = on_status
        self._status = CheckStatus()
        self._was_finite = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with a first test at once; not where the interval is 0."""
        if self._interval_s > 0:
            self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """End; a test that runs is dropped."""
        if self._task is not None:
            self._task.cancel()

    async def check(self) -> None:
        """Run one test and tell its outcome."""
        began_s = time.perf_counter()
        try:
            self._look_at(await self._infer())
        except AgentError as error:
            self._status = after(self._status, judged(error), time.time(), error=str(error))
        except Exception as error:
            logger.exception("a test inference could not be run")
            sentence = f"the test could not be run ({type(error).__name__})"
            self._status = after(self._status, "error", time.time(), error=sentence)
        else:
            duration_s = time.perf_counter() - began_s
            self._status = after(self._status, "healthy", time.time(), duration_s=duration_s)
        self._on_status(self._status)

    def _look_at(self, outputs: tuple[OutputTensor, ...]) -> None:
        """Raise ModelError for NaN or infinite values from a model that has answered without before.

        Some answer the test row with them by nature: a logarithm, masked logits.
        """
        name = non_finite(outputs)
        if name is None:
            self._was_finite = True
        elif self._was_finite:
            raise ModelError(f"output {name!r} of the test inference holds NaN or infinite values")

    async def _run(self) -> None:
        while True:
            await self.check()
            await asyncio.sleep(self._interval_s)
