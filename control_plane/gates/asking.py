"""Asking agents directly, over their own sockets, without disturbing who else asks them.

Never more than one request at a time goes to each of the two versions, however many items a gate has; a busy
agent is asked again a little later.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final, TypeGuard, TypeVar

import msgspec

from control_plane import socket_http
from control_plane.errors import UnavailableError
from control_plane.gates import infer_codec
from control_plane.gates.infer_codec import Row
from control_plane.gates.scene import AgentAt, Side
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.contract.wire import JSON_LENGTH_HEADER
from serving_agent.messages import OutputTensor
from serving_agent.predict_codec import nesting

REQUEST_TIMEOUT_S: Final = 30.0
METADATA_TIMEOUT_S: Final = 5.0
BATCH_ROWS: Final = 8
"""Rows of one request: few, so that requests of clients do not wait long behind it."""
BUSY: Final = frozenset({429, 503})
BUSY_TRIES: Final = 20
BUSY_PAUSE_S: Final = 0.25
BEAT_S: Final = 0.2
"""How often the job is told that a gate is at work while it waits for answers, in seconds."""
LARGEST_ANSWER_BYTES: Final = 512 * 1024 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """Outputs of one request, and how long it took in seconds."""

    outputs: tuple[OutputTensor, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Refused:
    """No outputs: an error answer, or none at all (status 0); the sentence says why."""

    status: int
    sentence: str

    @property
    def silent(self) -> bool:
        """Whether the agent was not there, or too busy for as long as it was asked."""
        return self.status == 0 or self.status in BUSY


Reply = Answer | Refused


class Asking:
    """Asks for one gate; *beat* is called while answers are awaited and may raise to end it all."""

    def __init__(self, endpoint: str, beat: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._beat = beat
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="gate")

    def close(self) -> None:
        """Wait for nothing more: what is under way ends by itself, by its timeout at the latest."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def one(self, agent: AgentAt, row: Row, signature: Signature) -> Reply:
        """The reply of *agent* to one row."""
        return self._await(self._pool.submit(self._infer, agent, (row,), signature))[0]

    def some(self, side: Side, rows: Sequence[Row]) -> list[Reply]:
        """The replies of *side* to each of *rows*, in order."""
        return self._await(self._pool.submit(self._rows, side, rows))[0]

    def both(self, stable: Side, candidate: Side, rows: Sequence[Row]) -> Iterator[tuple[Reply, Reply]]:
        """Both versions' replies to each of *rows*, a few rows at a time.

        A candidate that has fallen silent is not asked again: that is its reply to all that is left. Raises
        UnavailableError where stable falls silent: then there is nothing to compare with.
        """
        gone: Refused | None = None
        for batch in batches(rows):
            sides = (stable, candidate) if gone is None else (stable,)
            replies = self._await(*(self._pool.submit(self._rows, side, batch) for side in sides))
            others = replies[1] if gone is None else [gone] * len(batch)
            for ours, theirs in zip(replies[0], others, strict=True):
                _check_there(stable, ours)
                yield ours, theirs
            gone = next((each for each in others if _is_silent(each)), None)

    def _await(self, *asked: Future[T]) -> tuple[T, ...]:
        while wait(asked, timeout=BEAT_S).not_done:
            self._beat()
        self._beat()
        return tuple(future.result() for future in asked)

    def _rows(self, side: Side, rows: Sequence[Row]) -> list[Reply]:
        """One request for *rows* where the model takes several, else one for each."""
        if len(rows) > 1 and _takes_rows(side.signature):
            reply = self._of_any(side, rows)
            split = infer_codec.by_row(reply.outputs, len(rows)) if isinstance(reply, Answer) else None
            if split is not None and isinstance(reply, Answer):
                return [Answer(outputs, reply.seconds / len(rows)) for outputs in split]
            if _is_silent(reply):
                return [reply] * len(rows)
        return [self._of_any(side, (row,)) for row in rows]

    def _of_any(self, side: Side, rows: Sequence[Row]) -> Reply:
        """The reply of the first agent that gives one."""
        reply: Reply = Refused(0, f"{side.ref} has no ready agent")
        if side.signature is None:
            return Refused(0, f"no agent of {side.ref} tells its signature")
        for agent in side.agents:
            reply = self._infer(agent, rows, side.signature)
            if isinstance(reply, Answer) or not reply.silent:
                return reply
        return reply

    def _infer(self, agent: AgentAt, rows: Sequence[Row], signature: Signature) -> Reply:
        body = infer_codec.request(rows, signature)
        reply: Reply = self._post(agent, body)
        for _ in range(BUSY_TRIES):
            if not isinstance(reply, Refused) or reply.status not in BUSY:
                break
            time.sleep(BUSY_PAUSE_S)
            reply = self._post(agent, body)
        return reply

    def _post(self, agent: AgentAt, body: bytes) -> Reply:
        target = f"/v2/models/{self._endpoint}/infer"
        started = time.perf_counter()
        try:
            answer = socket_http.post(agent.address, target, body, REQUEST_TIMEOUT_S, LARGEST_ANSWER_BYTES)
            seconds = time.perf_counter() - started
            if answer.status != 200:
                return Refused(answer.status, infer_codec.message(answer.body))
            return Answer(infer_codec.outputs(answer.body, answer.headers.get(JSON_LENGTH_HEADER)), seconds)
        except socket_http.NoAnswerError as error:
            return Refused(0, str(error))
        except infer_codec.UnreadableError as error:
            return Refused(200, str(error))


def _is_silent(reply: Reply) -> TypeGuard[Refused]:
    return isinstance(reply, Refused) and reply.silent


def _check_there(stable: Side, reply: Reply) -> None:
    if _is_silent(reply):
        raise UnavailableError(
            f"no agent of {stable.ref} answers, so there is nothing to compare with: {reply.sentence}",
            next_step="See whether the endpoint is healthy, then start the rollout again.",
        )


class _Metadata(msgspec.Struct):
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def described(agents: Sequence[AgentAt], endpoint: str) -> Signature | None:
    """What the first of *agents* that answers says it takes and gives; None where none does."""
    for agent in agents:
        try:
            body = socket_http.get(agent.address, f"/v2/models/{endpoint}", METADATA_TIMEOUT_S)
            metadata = msgspec.json.decode(body, type=_Metadata)
            return Signature(metadata.inputs, metadata.outputs)
        except (socket_http.NoAnswerError, msgspec.MsgspecError, UnicodeDecodeError, ValueError):
            continue
    return None


def batches(rows: Sequence[Row], most: int = BATCH_ROWS) -> Iterator[Sequence[Row]]:
    """*rows* in order, in runs of equal shapes and at most *most* rows. Pure."""
    for _, run in itertools.groupby(rows, _form):
        same = list(run)
        for start in range(0, len(same), most):
            yield same[start : start + most]


def _form(row: Row) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, nesting(value)) for name, value in row.items())


def _takes_rows(signature: Signature | None) -> bool:
    specs = (*signature.inputs, *signature.outputs) if signature else ()
    return bool(specs) and all(spec.shape[:1] == (-1,) for spec in specs)
