"""One request through a handler's hooks; a recorder may watch. Serving and debugging run this code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from serving_agent.datatypes import Array
from serving_agent.messages import OutputTensor
from serving_agent.model_server import ModelServer
from serving_agent.validation import check_outputs


class StepRecorder(Protocol):
    """Watches the steps of one request."""

    def record(self, step: str, values: Mapping[str, Any]) -> None:
        """Take what *step* (`inputs`, `preprocess`, `predict`, `postprocess`) produced."""


def run(
    server: ModelServer, inputs: Mapping[str, Array], recorder: StepRecorder | None = None
) -> tuple[OutputTensor, ...]:
    """Return the outputs for *inputs*, checked against the signature, in its order.

    Raises ModelError where the outputs break the signature, and whatever the hooks raise.
    """
    import torch

    if recorder:
        recorder.record("inputs", inputs)
    values: Mapping[str, Any] = inputs
    with torch.inference_mode():
        for step, hook in (
            ("preprocess", server.preprocess),
            ("predict", server.predict),
            ("postprocess", server.postprocess),
        ):
            values = hook(values)
            if recorder:
                recorder.record(step, values)
    return check_outputs(server.signature(), values)
