"""Requests that an operator lets an agent keep for the debugger; lives on the I/O loop's thread.

As with a rollout's captures a request is taken up when it is queued and kept when the model is done with it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from msgspec.structs import replace

from serving_agent import answers
from serving_agent.batch import Inputs
from serving_agent.capture_ring import CaptureRing
from serving_agent.contract.capture import Capture, CapturePage
from serving_agent.contract.options import Sampling
from serving_agent.contract.signature import TensorSpec
from serving_agent.errors import AgentError
from serving_agent.messages import InferRequest, OutputTensor
from serving_agent.rollout_recorder import (
    MAX_ID_CHARS,
    MAX_INPUT_BYTES,
    Record,
    Tensors,
    captured,
    fingerprint,
)
from serving_agent.sampling import Sampler

logger = logging.getLogger(__name__)

MINUTE_S: Final = 60.0
MAX_OUTPUT_BYTES: Final = 256 * 1024
"""Outputs of one sample whose data is larger, together, are kept by name, type and shape alone."""


class RequestSamples:
    """The samples of one agent; times come from *clock* (seconds since the epoch)."""

    def __init__(
        self, options: Sampling, labels: tuple[str, ...], clock: Callable[[], float] = time.time
    ) -> None:
        self._options = options
        self._labels = labels
        self._clock = clock
        self._sampler = Sampler(max(1, options.per_minute))
        self._ring = CaptureRing(first_seq=int(clock() * 1000), kept_s=options.keep_hours * 3600)
        self.is_on = options.per_minute > 0

    def begin(self, request: InferRequest, inputs: Inputs, specs: Sequence[TensorSpec]) -> Record | None:
        """Take up *request* with its decoded *inputs*, typed as *specs* say; None where it is not kept.

        Never raises: a request does not fail because it cannot be kept.
        """
        try:
            return self._begun(request, inputs, specs) if self._wants(request) else None
        except Exception:
            logger.exception("the inputs of a request could not be kept")
            return None

    def page(self, after: int, limit: int, *, with_inputs: bool) -> CapturePage:
        """Return the samples after number *after*; see `CaptureRing.page`."""
        self._ring.expire(self._clock())
        return self._ring.page(after, limit, with_inputs=with_inputs)

    def _wants(self, request: InferRequest) -> bool:
        """Tell whether the request is kept: the sampler counts minutes where it says seconds."""
        return self.is_on and self._sampler.takes(
            request.request_id or repr(request.arrived_s), self._clock() / MINUTE_S
        )

    def _begun(self, request: InferRequest, inputs: Inputs, specs: Sequence[TensorSpec]) -> Record:
        named = [OutputTensor(spec.name, spec.datatype, inputs[spec.name]) for spec in specs]
        begun = Capture(
            seq=0,
            request_id=request.request_id[:MAX_ID_CHARS],
            fingerprint=fingerprint(request, inputs),
            rollout="",
            at=0.0,
            inputs=captured(named, MAX_INPUT_BYTES, self._options.redact),
        )
        return partial(self._keep, begun)

    def _keep(self, begun: Capture, outcome: Tensors | AgentError) -> None:
        now_s = self._clock()
        self._ring.expire(now_s)
        if isinstance(outcome, AgentError):
            self._ring.put(replace(begun, at=now_s, error=outcome.code))
            return
        summary = answers.summary(outcome, self._labels)
        self._ring.put(
            replace(
                begun,
                at=now_s,
                outputs=captured(outcome, MAX_OUTPUT_BYTES, self._options.redact),
                nonfinite=summary.nonfinite,
                decides=summary.decides,
                decisions=summary.decisions,
            )
        )
