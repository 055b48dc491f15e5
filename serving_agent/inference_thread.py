"""The one thread that runs the model, and the bounded queue of batches in front of it.

The I/O loop submits work and is called back; work whose client has gone, or whose deadline has passed, is
dropped before it reaches the model. Nothing polls: the thread sleeps on a condition.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from serving_agent import limits, shedding
from serving_agent.batch_queue import BatchQueue
from serving_agent.batch_runner import BatchRunner, Executed
from serving_agent.contract.manifest import Manifest
from serving_agent.duration_model import DurationModel
from serving_agent.errors import DeadlineError, NotReadyError, OverloadedError, QueueFullError
from serving_agent.measurements import Measurements
from serving_agent.startup import Started
from serving_agent.work import Answer, Outcome, Work

logger = logging.getLogger(__name__)

LONGEST_HOLD_S: Final = 0.005
"""How long requests are held at most for the company they had before."""


class InferenceThread:
    """Starts the model, then answers one batch at a time."""

    def __init__(
        self,
        manifest: Manifest,
        measurements: Measurements,
        start: Callable[[], Started],
        on_ready: Callable[[Started], None],
        on_failed: Callable[[BaseException], None],
    ) -> None:
        """*start* runs on the thread; *on_ready* and *on_failed* run on the loop that calls `start()`."""
        self._limits = manifest.limits
        self._batching = manifest.options.batching
        self._measurements = measurements
        self._start = start
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._queue: BatchQueue[Work] = BatchQueue(
            self._batching.max_rows, self._batching.max_delay_ms / 1000
        )
        self._durations = DurationModel()
        self._running: Sequence[Work] = ()
        self._began_s: float | None = None
        self._is_waking = False
        self._wake = threading.Condition(threading.Lock())
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin on a daemon thread: a model that hangs cannot keep the process alive."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, name="inference", daemon=True).start()

    def submit(self, work: Work) -> None:
        """Queue *work*; its `done` is called once on the loop, with a DeadlineError when its time is up.

        Raises QueueFullError, OverloadedError.
        """
        assert self._loop is not None  # noqa: S101 - requests come after start
        now_s = time.perf_counter()
        with self._wake:
            self._check_room(work, now_s)
            self._queue.put(work)
        if not self._is_waking:
            self._is_waking = True
            self._loop.call_soon(self._wake_up)
        work.timer = self._loop.call_later(work.deadline_s - now_s, self._expire, work)

    def _wake_up(self) -> None:
        """Wake the thread once for all requests that came in this turn of the loop: they can run together."""
        self._is_waking = False
        with self._wake:
            self._wake.notify()

    def cancel(self, work: Work) -> None:
        """Forget *work*: it is not run if it has not begun, and nobody is told."""
        if not work.is_settled:
            _settle(work)
            with self._wake:
                self._queue.remove(work)

    @property
    def depth(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def busy_s(self) -> float:
        """For how long the model has been running the present batch, in seconds; 0 when it is idle."""
        began_s = self._began_s  # read once: the inference thread clears it at any moment
        return 0.0 if began_s is None else time.perf_counter() - began_s

    def abandon(self) -> None:
        """Answer all work that is waiting or running with NotReadyError: the process is about to end."""
        with self._wake:
            unfinished = [*self._queue.drain(), *self._running]
        for work in unfinished:
            _finish(work, NotReadyError("the agent is ending before it could answer; try again"))

    def _check_room(self, work: Work, now_s: float) -> None:
        if len(self._queue) >= self._limits.max_queue:
            raise QueueFullError(f"{len(self._queue)} requests are waiting already; try again later")
        if self._batching.adaptive and self._durations.is_trusted:
            self._check_deadline(work, now_s)

    def _check_deadline(self, work: Work, now_s: float) -> None:
        if not self._running and not len(self._queue):
            return  # nothing is ahead: only by being run can it show how long it takes
        backlog = shedding.Backlog(
            running_rows=sum(member.rows for member in self._running),
            running_for_s=self.busy_s,
            waiting_rows=self._queue.rows,
            max_rows=self._batching.max_rows,
        )
        needed_s = shedding.answered_in_s(self._durations, backlog, work.rows)
        left_s = work.deadline_s - now_s
        if needed_s > left_s:
            raise OverloadedError(
                f"{len(self._queue)} requests are ahead: the answer would take about {_rounded(needed_s)} s, "
                f"and its deadline is in {_rounded(left_s)} s"
            )

    def _expire(self, work: Work) -> None:
        with self._wake:
            self._queue.remove(work)
        _finish(work, DeadlineError(f"no answer within {work.timeout_s:.3g} s"))

    def _run(self) -> None:
        try:
            started = self._start()
        except BaseException as error:  # whatever a model raises, SystemExit too, is its failure to load
            limits.lift()  # telling why takes memory too
            logger.exception("the model could not be started")
            self._tell(partial(self._on_failed, error))
            return
        self._tell(partial(self._on_ready, started))
        runner = BatchRunner(started.server, self._batching.buckets, self._limits.memory_bytes)
        try:
            while True:
                self._answer(runner, self._next())
                self._running = ()  # an idle agent holds no request's data
        except BaseException as error:  # a fault of ours: without this thread the agent can only end
            limits.lift()
            logger.exception("the inference thread has ended")
            self._tell(self.abandon)
            self._tell(partial(self._on_failed, error))

    def _next(self) -> Sequence[Work]:
        with self._wake:
            while True:
                now_s = time.perf_counter()
                if batch := self._queue.take(now_s):
                    self._running = batch
                    return batch
                due_s = self._queue.due_s()
                self._wake.wait(None if due_s is None else due_s - now_s)

    def _answer(self, runner: BatchRunner, members: Sequence[Work]) -> None:
        runs = runner.run(members)
        answered = 0
        while answered < len(members):
            self._began_s = time.perf_counter()
            executed = next(runs, None)
            self._began_s = None
            if executed is None:  # the rest have gone
                return
            answered += len(executed.outcomes)
            self._take(executed, left=members if answered < len(members) else ())

    def _take(self, executed: Executed, left: Sequence[Work]) -> None:
        if executed.stages is not None:
            self._durations.observe(executed.rows, executed.stages.total_s)
        if len(executed.outcomes) > 1:
            self._expect_back(executed.rows)
        self._running = left  # before anybody is told: whoever is may ask again at once, and nothing is ahead
        self._tell(partial(self._deliver, executed))

    def _expect_back(self, rows: int) -> None:
        """Wait a moment for the clients of a shared batch: as long as a batch for some of them would cost."""
        hold_s = min(self._durations.overhead_s, LONGEST_HOLD_S)
        with self._wake:
            self._queue.expect(rows, time.perf_counter() + hold_s)

    def _deliver(self, executed: Executed) -> None:
        asked = [work for work, _ in executed.outcomes if not work.is_test]
        if executed.stages is not None and asked:
            self._measurements.executed(executed.rows, executed.stages)
        for work, outcome in executed.outcomes:
            if isinstance(outcome, Answer) and not work.is_test:
                self._measurements.inferred(outcome.queue_s, outcome.stages)
            try:
                _finish(work, outcome)
            except Exception:
                logger.exception("an answer could not be handed on")  # the batch's other members are told
            if work.record is not None:
                work.record(outcome)

    def _tell(self, callback: Callable[[], None]) -> None:
        """Run *callback* on the loop; once the loop has closed nobody waits for it any more."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)


def _rounded(seconds: float) -> str:
    """*seconds* to two digits, never as a power of ten: 0.061, 42, 420."""
    return f"{float(f'{seconds:.2g}'):g}"


def _finish(work: Work, outcome: Outcome) -> None:
    if not work.is_settled:
        _settle(work)
        work.done(outcome)


def _settle(work: Work) -> None:
    work.is_settled = True
    if work.timer is not None:
        work.timer.cancel()
