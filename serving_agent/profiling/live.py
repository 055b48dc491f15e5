"""A profile of this agent while it serves: stages of requests, and samples of all its threads.

Nothing runs on the inference thread, and nothing is restarted; one profile at a time, bounded in requests,
time and memory. torch.profiler is left to profiles of a version: starting and reading it would hold requests
up for seconds. Lives on the I/O loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, Literal

import msgspec

from serving_agent.contract.profile import STAGES, LiveOrder, LiveProfile
from serving_agent.errors import InvalidRequestError, MethodError
from serving_agent.health import Health
from serving_agent.http_message import Response
from serving_agent.http_protocol import Exchange
from serving_agent.measurements import Measurements
from serving_agent.profiling import memory
from serving_agent.profiling.sampler import Sampler
from serving_agent.profiling.timings import times
from serving_agent.work import Answer

logger = logging.getLogger(__name__)

BUSY: Final = b'{"error":"a profile is being taken already; try again when it has ended"}'
CONFLICT: Final = 409
MAX_ORDER_BYTES: Final = 4096

Ended = Literal["requests", "seconds", "draining"]
Respond = Callable[[Exchange, Response | Exception], None]
"""Sends an answer, or what failed as one."""


class _Running:
    """One profile under way."""

    def __init__(
        self, order: LiveOrder, measurements: Measurements, exchange: Exchange, respond: Respond
    ) -> None:
        self.order = order
        self.exchange = exchange
        self.respond = respond
        self.sampler = Sampler(order.rate_hz)
        self.began_rows = measurements.inferred_rows
        self.began_batches = measurements.rows.count
        self.total: list[float] = []
        self.stages: dict[str, list[float]] = {name: [] for name in STAGES}
        self.failed = self.unwritten = 0
        self.timer: asyncio.TimerHandle | None = None


class LiveProfiler:
    """Takes one profile at a time."""

    def __init__(self, health: Health, measurements: Measurements) -> None:
        self._health = health
        self._measurements = measurements
        self._running: _Running | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def is_on(self) -> bool:
        """Whether requests are to be told of."""
        return self._running is not None

    def answer(self, exchange: Exchange, respond: Respond) -> None:
        """Answer `POST /internal/profile` once the profile has ended; 409 while another one is taken.

        *respond* sends an answer. Raises MethodError, InvalidRequestError, NotReadyError.
        """
        if exchange.error is not None:
            raise exchange.error
        if exchange.method != b"POST":
            raise MethodError("this route takes POST", "POST")
        order = _order(bytes(exchange.body[: MAX_ORDER_BYTES + 1]))
        self._health.check_answering()
        if self._running is not None or self._ending:
            respond(exchange, Response((BUSY,), CONFLICT))
            return
        self._start(order, exchange, respond)

    def took(self, arrived_s: float, answered_s: float, sent_s: float | None, answer: Answer) -> None:
        """Count a request: when it arrived, when the model had answered it, when that had been sent.

        sent_s: None where the answer is written later.
        """
        running = self._running
        if running is None:
            return
        known = {
            "queue": answer.queue_s,
            "preprocess": answer.stages.preprocess_s,
            "predict": answer.stages.predict_s,
            "postprocess": answer.stages.postprocess_s,
        }
        if sent_s is None:
            running.unwritten += 1
        else:
            known["encode"] = sent_s - answered_s
        total_s = (answered_s if sent_s is None else sent_s) - arrived_s
        known["other"] = max(0.0, total_s - sum(known.values()))
        for name, seconds in known.items():
            running.stages[name].append(seconds)
        running.total.append(total_s)
        if len(running.total) >= running.order.requests:
            self.end("requests")

    def failed(self) -> None:
        """Count a request that got no answer from the model."""
        if self._running is not None:
            self._running.failed += 1

    def end(self, why: Ended) -> None:
        """End the profile under way, and answer who asked for it. Idempotent."""
        running, self._running = self._running, None
        if running is None:
            return
        if running.timer is not None:
            running.timer.cancel()
        running.sampler.halt()
        task = asyncio.get_running_loop().create_task(self._finish(running, why))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _start(self, order: LiveOrder, exchange: Exchange, respond: Respond) -> None:
        running = _Running(order, self._measurements, exchange, respond)
        running.sampler.start()
        self._running = running
        running.timer = asyncio.get_running_loop().call_later(order.seconds, self.end, "seconds")
        exchange.on_gone = partial(self._abandon, running)
        logger.info("profiling %d requests, at most %g s", order.requests, order.seconds)

    def _abandon(self, running: _Running) -> None:
        """Who asked for *running* has gone: nobody waits for what was found."""
        if self._running is running:
            self._running = None
        running.sampler.halt()
        if running.timer is not None:
            running.timer.cancel()

    async def _finish(self, running: _Running, why: Ended) -> None:
        """Put the answer together on another thread, and send it."""
        rows = self._measurements.inferred_rows - running.began_rows
        batches = self._measurements.rows.count - running.began_batches
        outcome: Response | Exception
        try:
            outcome = Response((await asyncio.to_thread(_content, running, why, rows, batches),))
        except Exception as failure:  # noqa: BLE001 - told to who asked: nobody waits for this task
            outcome = failure
        running.respond(running.exchange, outcome)


def _content(running: _Running, why: Ended, rows: int, batches: int) -> bytes:
    samples = running.sampler.stop()
    total = running.total
    profile = LiveProfile(
        requests=len(total),
        failed=running.failed,
        rows=rows,
        batches=batches,
        seconds=samples.seconds,
        total=times("total", total) if total else None,
        stages=tuple(times(name, seconds) for name, seconds in running.stages.items() if seconds),
        unwritten=running.unwritten,
        samples=samples,
        peak_bytes=memory.peak_bytes("cpu"),
        overhead=running.sampler.overhead,
        ended=why,
    )
    return msgspec.json.encode(profile)


def _order(content: bytes) -> LiveOrder:
    if len(content) > MAX_ORDER_BYTES:
        raise InvalidRequestError(f"the order of a profile has at most {MAX_ORDER_BYTES} bytes")
    try:
        return msgspec.json.decode(content, type=LiveOrder)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"no order of a profile: {error}") from None
