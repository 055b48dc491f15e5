"""Captured tensors as people and pages read them: nested lists that any JSON can hold. Pure."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from serving_agent import tensors
from serving_agent.contract.capture import Capture, CapturedTensor
from serving_agent.errors import InvalidRequestError

MAX_OUTPUT_ELEMENTS: Final = 4096
"""Larger outputs are told by type and shape alone: nobody reads them number by number."""


def inputs_of(capture: Capture) -> dict[str, Any] | None:
    """Return the request's inputs by name, with their rows; None unless all of them were kept."""
    values = {tensor.name: nested(tensor) for tensor in capture.inputs}
    return None if None in values.values() or not values else values


def answer_of(capture: Capture) -> dict[str, Any]:
    """Return the answer: {"outputs": {name: {"datatype", "shape", "data" | None}}, "decides", "decisions",
    "nonfinite", "error"}."""
    return {
        "outputs": {tensor.name: _output(tensor) for tensor in capture.outputs},
        "decides": capture.decides,
        "decisions": list(capture.decisions),
        "nonfinite": capture.nonfinite,
        "error": capture.error,
    }


def nested(tensor: CapturedTensor) -> Any:
    """Return the elements as lists in the tensor's shape; None where they were not kept or cannot be read.

    NaN and infinities become the strings `NaN`, `Infinity` and `-Infinity`, which every JSON can hold.
    """
    if tensor.data is None:
        return None
    try:
        flat = tensors.from_raw(tensor.data, math.prod(tensor.shape), tensor.datatype, tensor.name)
        array = flat.reshape(tensor.shape)
    except (InvalidRequestError, ValueError, KeyError):
        return None
    if tensor.datatype == "BYTES":
        texts = [item.decode(errors="replace") for item in flat.tolist()]
        return np.array(texts, dtype=object).reshape(tensor.shape).tolist()
    return array.tolist() if tensors.is_finite(array, tensor.datatype) else spelled(array.tolist())


def _output(tensor: CapturedTensor) -> dict[str, Any]:
    shown = nested(tensor) if math.prod(tensor.shape) <= MAX_OUTPUT_ELEMENTS else None
    return {"datatype": tensor.datatype, "shape": list(tensor.shape), "data": shown}


def spelled(value: Any) -> Any:
    """Return nested lists with words for what JSON has no numbers for."""
    if isinstance(value, list):
        return [spelled(item) for item in value]
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
