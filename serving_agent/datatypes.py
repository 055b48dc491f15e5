"""The protocol's element types as numpy and torch know them.

BF16 has no numpy type: inside the agent a BF16 tensor is a float32 array whose values BF16 can hold, and only
the raw form on the wire is two bytes wide. BYTES tensors are object arrays of `bytes`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NUMPY_TYPE: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "BF16": np.dtype(np.float32),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}
"""Datatype → type of the arrays that hold it."""

FLOATS: Final = frozenset({"FP16", "BF16", "FP32", "FP64"})
"""Datatypes that can hold NaN."""

TORCH_NAME: Final[dict[str, str]] = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP32": "float32",
    "FP64": "float64",
}
"""Datatype → attribute of `torch`; BYTES has none."""

DATATYPE_OF_TORCH: Final[dict[str, str]] = {
    f"torch.{name}": datatype for datatype, name in TORCH_NAME.items()
}
"""`str(tensor.dtype)` → datatype."""


def wire_size(datatype: str) -> int | None:
    """Return the bytes one element takes in raw form, or None for BYTES, whose elements differ."""
    if datatype == "BYTES":
        return None
    return 2 if datatype == "BF16" else NUMPY_TYPE[datatype].itemsize
