"""The one thread that runs the model, and the bounded queue in front of it.

The I/O loop submits work and awaits it; work whose client has gone, or whose deadline has passed, is dropped
before it reaches the model. Nothing polls: the thread sleeps on a condition.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from serving_agent import pipeline
from serving_agent.datatypes import Array
from serving_agent.errors import (
    AgentError,
    DeadlineError,
    ModelError,
    ModelMemoryError,
    NotReadyError,
    QueueFullError,
)
from serving_agent.limits import is_out_of_memory, memory_sentence
from serving_agent.messages import OutputTensor
from serving_agent.model_server import ModelServer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs of one request and where its time went, in seconds."""

    outputs: tuple[OutputTensor, ...]
    queue_s: float
    inference_s: float


@dataclass(slots=True, eq=False)
class Work:
    """One request on its way through the thread."""

    inputs: Mapping[str, Array]
    future: asyncio.Future[Answer]
    submitted_s: float


class InferenceThread:
    """Starts the model, then answers one request at a time."""

    def __init__(
        self,
        start: Callable[[], ModelServer],
        on_ready: Callable[[ModelServer], None],
        on_failed: Callable[[BaseException], None],
        *,
        max_queue: int,
        memory_bytes: int | None,
    ) -> None:
        """*start* runs on the thread; *on_ready* and *on_failed* run on the loop that calls `start()`."""
        self._start = start
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._max_queue = max_queue
        self._memory_bytes = memory_bytes
        self._waiting: deque[Work] = deque()
        self._running: Work | None = None
        self._began_s: float | None = None
        self._wake = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin on a daemon thread: a model that hangs cannot keep the process alive."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._run, name="inference", daemon=True).start()

    async def submit(self, inputs: Mapping[str, Array], timeout_s: float) -> Answer:
        """Return the model's answer; cancelling the caller drops the work if it has not begun.

        Raises QueueFullError, DeadlineError, NotReadyError, ModelError, or the handler's own AgentError.
        """
        loop = asyncio.get_running_loop()
        work = Work(inputs, loop.create_future(), time.perf_counter())
        self._enqueue(work)
        try:
            async with asyncio.timeout(timeout_s):
                return await work.future
        except TimeoutError:
            raise DeadlineError(f"no answer within {timeout_s:.3g} s") from None
        finally:
            if work.future.cancelled() or not work.future.done():
                self._drop(work)

    @property
    def busy_s(self) -> float:
        """For how long the model has been running the present request, in seconds; 0 when it is idle."""
        began_s = self._began_s  # read once: the inference thread clears it at any moment
        return 0.0 if began_s is None else time.perf_counter() - began_s

    def abandon(self) -> None:
        """Answer all work that is waiting or running with NotReadyError: the process is about to end."""
        with self._wake:
            unfinished = [*self._waiting, *([self._running] if self._running else [])]
            self._waiting.clear()
        for work in unfinished:
            _fail(work.future, NotReadyError("the agent is ending before it could answer; try again"))

    def _enqueue(self, work: Work) -> None:
        with self._wake:
            if len(self._waiting) >= self._max_queue:
                raise QueueFullError(f"{len(self._waiting)} requests are waiting already; try again later")
            self._waiting.append(work)
            self._wake.notify()

    def _drop(self, work: Work) -> None:
        with self._wake:
            if work in self._waiting:
                self._waiting.remove(work)

    def _run(self) -> None:
        try:
            server = self._start()
        except BaseException as error:  # whatever a model raises, SystemExit too, is its failure to load
            logger.exception("the model could not be started")
            self._tell(partial(self._on_failed, error))
            return
        self._tell(partial(self._on_ready, server))
        while True:
            self._answer(server, self._next())
            self._running = None  # an idle agent holds no request's data

    def _next(self) -> Work:
        with self._wake:
            while not self._waiting:
                self._wake.wait()
            self._running = self._waiting.popleft()
            return self._running

    def _answer(self, server: ModelServer, work: Work) -> None:
        started = time.perf_counter()
        try:
            outputs = self._run_model(server, work, started)
        except BaseException as error:  # noqa: BLE001 - this is the edge of a request; _failure logs it
            failure = self._failure(error)
            self._tell(partial(_fail, work.future, failure))
            return
        answer = Answer(outputs, started - work.submitted_s, time.perf_counter() - started)
        self._tell(partial(_resolve, work.future, answer))

    def _run_model(self, server: ModelServer, work: Work, started: float) -> tuple[OutputTensor, ...]:
        self._began_s = started
        try:
            return pipeline.run(server, work.inputs)
        finally:
            self._began_s = None

    def _failure(self, error: BaseException) -> AgentError:
        if isinstance(error, AgentError) and not isinstance(error, ModelError):
            return error
        logger.error("the model failed on a request", exc_info=error)
        if isinstance(error, ModelError):
            return error
        if is_out_of_memory(error):
            return ModelMemoryError(memory_sentence(self._memory_bytes))
        return ModelError(
            f"the model failed on this input ({type(error).__name__}); the agent's log tells more"
        )

    def _tell(self, callback: Callable[[], None]) -> None:
        """Run *callback* on the loop; once the loop has closed nobody waits for it any more."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)


def _resolve(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)


def _fail(future: asyncio.Future[Answer], error: AgentError) -> None:
    if not future.done():
        future.set_exception(error)
