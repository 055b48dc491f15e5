"""Tensor signatures in the terms of the Open Inference Protocol v2."""

from __future__ import annotations

from typing import Final

import msgspec

DATATYPES: Final = (
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
)  # fmt: skip
"""Tensor element types of the protocol; BF16 is Triton's addition."""


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One named tensor: its element type and shape, where -1 stands for any size.

    The first dimension of a batched tensor is the batch and is written -1.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a tensor needs a name")
        if self.datatype not in DATATYPES:
            raise ValueError(f"datatype {self.datatype!r} is not one of {', '.join(DATATYPES)}")
        if any(size < -1 or size == 0 for size in self.shape):
            raise ValueError(f"shape {list(self.shape)} of {self.name!r} must hold sizes >= 1, or -1 for any")

    def __str__(self) -> str:
        return f"{self.name}:{self.datatype}[{','.join(str(size) for size in self.shape)}]"


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The named inputs and outputs of a version, in the order of the model's own arguments and results."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        for kind, specs in (("input", self.inputs), ("output", self.outputs)):
            names = [spec.name for spec in specs]
            if len(set(names)) != len(names):
                raise ValueError(f"{kind} names must differ: {names}")
