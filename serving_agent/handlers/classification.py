"""What classifiers share: probabilities of logits and the names of the likeliest classes."""

from __future__ import annotations

from typing import Final

import numpy as np

from serving_agent.contract.signature import TensorSpec
from serving_agent.datatypes import Array
from serving_agent.errors import ModelError

PROBABILITIES: Final = "probabilities"
LABEL: Final = "label"


def output_specs(classes: int) -> tuple[TensorSpec, TensorSpec]:
    """Return the outputs of a classifier: FP32 [rows, *classes*], -1 where unknown, and BYTES [rows]."""
    return TensorSpec(PROBABILITIES, "FP32", (-1, classes)), TensorSpec(LABEL, "BYTES", (-1,))


def softmax(logits: Array) -> Array:
    """Return float32 probabilities along the last axis; *logits* has shape (rows, classes)."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    probabilities: Array = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities.astype(np.float32)


def classify(logits: Array, labels: tuple[str, ...]) -> dict[str, Array]:
    """Return probabilities and labels for *logits*, shape (rows, classes). Raises ModelError on other shapes.

    A class without a name is called by its index.
    """
    if logits.ndim != 2:
        raise ModelError(
            f"a classifier must return logits of shape [rows, classes], not {list(logits.shape)}"
        )
    probabilities = softmax(logits)
    best = probabilities.argmax(axis=-1).tolist()
    named = [(labels[index] if index < len(labels) else str(index)).encode() for index in best]
    return {PROBABILITIES: probabilities, LABEL: np.fromiter(named, dtype=object)}
