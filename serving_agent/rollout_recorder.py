"""What is counted and kept of requests that are part of a rollout; lives on the I/O loop's thread.

A request is taken up when it is queued, because a model may overwrite its inputs, and recorded when the model
is done with it, whether or not its client still waits: nobody waits for the answer to a copy.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace

from serving_agent import answers, tensors
from serving_agent.batch import Inputs
from serving_agent.capture_ring import KEPT_S, CaptureRing
from serving_agent.contract.capture import Capture, CapturedTensor, CapturePage, LeftOut
from serving_agent.contract.signature import TensorSpec
from serving_agent.datatypes import Array, wire_size
from serving_agent.errors import AgentError
from serving_agent.measurements import Measurements
from serving_agent.messages import InferRequest, OutputTensor
from serving_agent.sampling import Sampler

logger = logging.getLogger(__name__)

MOST_PER_S: Final = 50
"""Captures a second, at most."""
MAX_INPUT_BYTES: Final = 1024 * 1024
"""Inputs of one capture whose data is larger, together, are kept by name, type and shape alone."""
MAX_OUTPUT_BYTES: Final = 64 * 1024
"""The same of outputs."""
MAX_ID_CHARS: Final = 128
"""Longer ids are none: the gateway's have 36 characters."""
HASHED_BYTES: Final = 16 * 1024
"""How much of each input goes into the fingerprint."""

Tensors = Sequence[OutputTensor]
Record = Callable[[Tensors | AgentError], None]
"""To be told once what a request came to at the model: what its client gets, or the error; or never."""


class RolloutRecorder:
    """Counts and keeps the answers of one agent."""

    def __init__(
        self, measurements: Measurements, labels: tuple[str, ...], redacted: Collection[str] = ()
    ) -> None:
        """*redacted*: names of tensors whose data is never kept."""
        self._measurements = measurements
        self._labels = labels
        self._redacted = redacted
        self._sampler = Sampler(MOST_PER_S)
        # fewer than one capture a millisecond: a later life of this agent begins above all numbers given out
        self._ring = CaptureRing(first_seq=time.time_ns() // 1_000_000)
        self._expiry: asyncio.TimerHandle | None = None

    def begin(self, request: InferRequest, inputs: Inputs, specs: Sequence[TensorSpec]) -> Record:
        """Take up *request*, which is part of a rollout, with its decoded *inputs*, typed as *specs* say.

        Never raises: a request does not fail because it cannot be kept.
        """
        try:
            capture = self._begun(request, inputs, specs) if self._wants(request) else None
        except Exception:
            logger.exception("the inputs of a request could not be kept")
            capture = None
        return self._count if capture is None else partial(self._keep, capture)

    def page(self, after: int, limit: int, rollout: str, *, with_inputs: bool) -> CapturePage:
        """Return the captures after number *after*; see `CaptureRing.page`."""
        self._ring.expire(time.time())
        return self._ring.page(after, limit, rollout, with_inputs=with_inputs)

    def _begun(self, request: InferRequest, inputs: Inputs, specs: Sequence[TensorSpec]) -> Capture:
        named = [OutputTensor(spec.name, spec.datatype, inputs[spec.name]) for spec in specs]
        return Capture(
            seq=0,
            request_id=request.request_id,
            fingerprint=fingerprint(request, inputs),
            rollout=request.rollout,
            at=0.0,
            inputs=captured(named, MAX_INPUT_BYTES, self._redacted),
        )

    def _wants(self, request: InferRequest) -> bool:
        """Tell whether the answer is kept; one without an id could not be found again."""
        if not request.request_id or max(len(request.request_id), len(request.rollout)) > MAX_ID_CHARS:
            return False
        return self._sampler.takes(request.request_id, time.monotonic())

    def _count(self, outcome: Tensors | AgentError) -> None:
        if not isinstance(outcome, AgentError):
            self._measurements.answered_in_rollout(answers.summary(outcome, self._labels))

    def _keep(self, capture: Capture, outcome: Tensors | AgentError) -> None:
        if isinstance(outcome, AgentError):
            self._put(replace(capture, at=time.time(), error=outcome.code))
            return
        summary = answers.summary(outcome, self._labels)
        self._measurements.answered_in_rollout(summary)
        done = replace(
            capture,
            at=time.time(),
            outputs=captured(outcome, MAX_OUTPUT_BYTES, self._redacted),
            nonfinite=summary.nonfinite,
            decides=summary.decides,
            decisions=summary.decisions,
        )
        self._put(done)

    def _put(self, capture: Capture) -> None:
        self._ring.put(capture)
        if self._expiry is None:
            self._expiry = asyncio.get_running_loop().call_later(KEPT_S, self._expire)

    def _expire(self) -> None:
        """Forget what is too old, also when no more requests come."""
        self._ring.expire(time.time())
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_later(KEPT_S, self._expire) if len(self._ring) else None


def fingerprint(request: InferRequest, inputs: Inputs) -> str:
    """Return 16 hexadecimal digits that differ for different inputs, wanted outputs or parameters.

    Of each input its name, type and shape count, and its first HASHED_BYTES bytes.
    """
    hashed = hashlib.blake2b(digest_size=8)
    hashed.update(repr((request.outputs, request.parameters)).encode())
    for name, array in inputs.items():
        hashed.update(repr((name, array.dtype.str, array.shape)).encode())
        hashed.update(_beginning(array))
    return hashed.hexdigest()


def captured(named: Tensors, max_bytes: int, redacted: Collection[str] = ()) -> tuple[CapturedTensor, ...]:
    """Return copies of *named*, of those *redacted* without their data.

    Without any data where that is more than *max_bytes*, taken together.
    """
    kept = [tensor for tensor in named if tensor.name not in redacted]
    others: LeftOut = "" if sum(map(raw_bytes, kept)) <= max_bytes else "too_large"
    return tuple(_captured(tensor, "redacted" if tensor.name in redacted else others) for tensor in named)


def _captured(tensor: OutputTensor, left_out: LeftOut) -> CapturedTensor:
    data = None if left_out else bytes(tensors.to_raw(tensor.array, tensor.datatype))
    return CapturedTensor(
        name=tensor.name,
        datatype=tensor.datatype,
        shape=tensor.array.shape,
        data=data,
        left_out=left_out,
    )


def raw_bytes(tensor: OutputTensor) -> int:
    """Return the size of *tensor* in raw form, in bytes."""
    size = wire_size(tensor.datatype)
    if size is not None:
        return size * tensor.array.size
    return sum(tensors.SIZE.size + len(item) for item in tensor.array.ravel().tolist())


def _beginning(array: Array) -> bytes:
    """Return the first HASHED_BYTES bytes of *array*; of texts, so many bytes of the first items of it."""
    if array.dtype == object:
        items = array.ravel()[: HASHED_BYTES // tensors.SIZE.size].tolist()
        return b"".join(tensors.SIZE.pack(len(item)) + item[:HASHED_BYTES] for item in items)[:HASHED_BYTES]
    return array.ravel()[: HASHED_BYTES // array.itemsize].tobytes()
