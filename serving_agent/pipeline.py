"""One batch through a handler's hooks; a recorder may watch. Serving and debugging run this code."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from serving_agent import execution
from serving_agent.datatypes import Array
from serving_agent.measurements import StageTimes
from serving_agent.messages import OutputTensor, Parameters
from serving_agent.model_server import ModelServer
from serving_agent.validation import check_outputs


class StepRecorder(Protocol):
    """Watches the steps of one request."""

    def record(self, step: str, values: Mapping[str, Any]) -> None:
        """Take what *step* (`inputs`, `preprocess`, `predict`, `postprocess`) produced."""


class Run(msgspec.Struct, frozen=True):
    """What the model answered and how long each hook took."""

    outputs: tuple[OutputTensor, ...]
    stages: StageTimes


def run(
    server: ModelServer,
    inputs: Mapping[str, Array],
    recorder: StepRecorder | None = None,
    parameters: Parameters = (),
) -> Run:
    """Return the outputs for *inputs*, checked against the signature, in its order.

    Raises ModelError where the outputs break the signature, and whatever the hooks raise.
    """
    import torch

    watch = recorder.record if recorder else _ignore
    watch("inputs", inputs)
    server.parameters = parameters
    times = [time.perf_counter()]
    with torch.inference_mode():
        prepared = server.preprocess(inputs)
        times.append(time.perf_counter())
        watch("preprocess", prepared)
        with execution.precision(server.context.execution, server.context.device):
            predicted = server.predict(prepared)
        times.append(time.perf_counter())
        watch("predict", predicted)
        answered = server.postprocess(predicted)
        watch("postprocess", answered)
    outputs = check_outputs(server.signature(), answered)
    times.append(time.perf_counter())
    return Run(outputs, StageTimes(times[1] - times[0], times[2] - times[1], times[3] - times[2]))


def _ignore(step: str, values: Mapping[str, Any]) -> None:
    del step, values
