"""Handlers without an artefact, and work for the inference thread that runs them."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.datatypes import Array
from serving_agent.formats import catalog as formats
from serving_agent.messages import Parameters
from serving_agent.model_server import ModelContext, ModelServer
from serving_agent.work import Outcome, Work

ROWS = Signature((TensorSpec("x", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))


def context_of(signature: Signature) -> ModelContext:
    """What a handler that loads nothing may know."""
    return ModelContext(
        artifact_dir=Path("/nowhere"),
        format=formats.get("torchscript"),
        signature=signature,
        model_signature=signature,
        labels=(),
        device="cpu",
    )


class Computing(ModelServer):
    """Answers *compute* of the arrays as clients sent them, and notes how many rows each run had."""

    def __init__(
        self, compute: Callable[[Mapping[str, Array]], Mapping[str, Array]], signature: Signature = ROWS
    ) -> None:
        self.context = context_of(signature)
        self.compute = compute
        self.runs: list[int] = []

    def preprocess(self, inputs: Mapping[str, Array]) -> Mapping[str, Any]:
        self.runs.append(len(next(iter(inputs.values()))))
        return inputs

    def predict(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.compute(inputs)

    def postprocess(self, outputs: Mapping[str, Any]) -> Mapping[str, Array]:
        return outputs


def work_for(
    inputs: Mapping[str, Array],
    done: Callable[[Outcome], None] = lambda _: None,
    *,
    group: Hashable = "a",
    timeout_s: float = 5.0,
    parameters: Parameters = (),
) -> Work:
    """Work with all rows of *inputs*, submitted now."""
    now_s = time.perf_counter()
    return Work(
        inputs=inputs,
        rows=len(next(iter(inputs.values()))),
        group=group,
        parameters=parameters,
        submitted_s=now_s,
        timeout_s=timeout_s,
        deadline_s=now_s + timeout_s,
        done=done,
    )


def rows_of(*firsts: float) -> dict[str, Array]:
    """Input `x` of ROWS: one row for each of *firsts*, which is its first number."""
    return {"x": np.array([[first, 1.0] for first in firsts], np.float32)}
