"""The models that every target serves: one that takes all datatypes, and one that was trained.

`types` rotates each row of each input by one place; row by row, so that batching may not change it. `digits`
classifies images of digits; it is fitted in closed form and rounded so that no order of additions changes an
answer: values are compared bit by bit. `digit` is the same for one image at a time: perf_analyzer compares
answers only where no size is left open.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from serving_agent.contract.signature import DATATYPES, Signature, TensorSpec

Array = npt.NDArray[Any]

TYPES: Final = "types"
DIGITS: Final = "digits"
DIGIT: Final = "digit"
VERSION: Final = 1
MODEL_FILE: Final = "model.pt"
NUMERIC: Final = tuple(datatype for datatype in DATATYPES if datatype != "BYTES")


def input_name(datatype: str) -> str:
    """Return the name of the input of `types` that takes *datatype*."""
    return f"in_{datatype.lower()}"


def output_name(datatype: str) -> str:
    """Return the name of the output of `types` that answers the input of *datatype*."""
    return f"out_{datatype.lower()}"


SIGNATURES: Final = {
    TYPES: Signature(
        tuple(TensorSpec(input_name(datatype), datatype, (-1, 3)) for datatype in DATATYPES),
        tuple(TensorSpec(output_name(datatype), datatype, (-1, 3)) for datatype in DATATYPES),
    ),
    DIGITS: Signature(
        (TensorSpec("image", "FP32", (-1, 1, 8, 8)),), (TensorSpec("logits", "FP32", (-1, 10)),)
    ),
    DIGIT: Signature((TensorSpec("image", "FP32", (1, 1, 8, 8)),), (TensorSpec("logits", "FP32", (1, 10)),)),
}

_VALUES: Final[dict[str, list[list[Any]]]] = {
    "BOOL": [[True, False, False], [False, True, True]],
    "FP16": [[1.5, -65504.0, 6e-8], [0.0, 0.1, 1024.0]],
    "BF16": [[1.5, -2.0, 3e38], [0.0078125, 256.0, 1e-38]],
    "FP32": [[0.1, -3.4028234e38, 1e-45], [16777216.0, 1 / 3, -0.0]],
    "FP64": [[0.1, -1.7976931348623157e308, 5e-324], [2.0**53, 1 / 3, -0.0]],
    "BYTES": [[b"a", "é…".encode(), b""], [b"x\0y", b"a longer one " * 20, b'"\\\n']],
}


def values(datatype: str) -> Array:
    """Return what is sent as *datatype*, shape (2, 3): its extremes and what is easily confused."""
    if datatype in _VALUES:
        return np.array(_VALUES[datatype], dtype=_numpy_type(datatype))
    bounds = np.iinfo(_numpy_type(datatype))
    return np.array([[bounds.max, 2, bounds.min], [4, 5, bounds.max - 1]], dtype=_numpy_type(datatype))


def rotated(array: Array) -> Array:
    """Return what `types` answers to *array*."""
    return np.roll(array, -1, axis=1)


def _numpy_type(datatype: str) -> npt.DTypeLike:
    special: dict[str, npt.DTypeLike] = {"BOOL": np.bool_, "BYTES": np.object_, "BF16": ml_dtypes.bfloat16}
    if datatype in special:
        return special[datatype]
    return np.dtype(datatype.lower().replace("fp", "float"))


def images() -> Array:
    """Return digits that the model has not seen, FP32 (4, 1, 8, 8) in [0, 1]."""
    return _data()[0][1500:1504].reshape(4, 1, 8, 8)


@cache
def weights() -> Array:
    """Return the classifier, FP32 (65, 10): ridge regression on one-hot classes; the last row is the bias.

    They are multiples of 1/1024, as pixels are of 1/16: all sums of products are exact in FP32.
    """
    pixels, classes = _data()
    inputs = np.hstack([pixels[:1500], np.ones((1500, 1))]).astype(np.float64)
    square = inputs.T @ inputs + np.eye(65)
    fitted = np.linalg.solve(square, inputs.T @ np.eye(10)[classes[:1500]])
    return np.asarray(np.round(fitted * 1024) / 1024, dtype=np.float32)


def logits() -> Array:
    """Return what `digits` answers to `images()`, FP32 (4, 10), computed without torch."""
    fitted = weights()
    return np.asarray(images().reshape(4, 64) @ fitted[:64] + fitted[64], dtype=np.float32)


@cache
def _data() -> tuple[Array, Array]:
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.data / 16.0).astype(np.float32), data.target


def save(model: str, folder: Path) -> Path:
    """Write *model* as TorchScript into *folder*."""
    from benchmarks.conformance import programs

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODEL_FILE
    if model == TYPES:
        programs.save_rotation(len(NUMERIC), path)
    else:
        programs.save_classifier(weights(), path)
    return path
