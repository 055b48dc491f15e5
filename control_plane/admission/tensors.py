"""Where the bytes of tensors lie in received files: what readers find and the safetensors writer copies.

A tensor is one or more pieces. A piece is a strided view of a storage, as torch describes it: element (i, j)
of the piece is element `start + i * strides[0] + j * strides[1]` of the storage, and lands at `at + (i, j)`
in the tensor. That is enough for plain tensors, views, tied and transposed ones, shards of distributed
checkpoints and the parts of fused projections, without any arithmetic on values. Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ITEM_BYTES: Final = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8, "C64": 8, "C128": 16,
}  # fmt: skip
"""safetensors' name of an element type → size of one element in bytes."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of bytes in a plain file."""

    location: Path
    offset: int
    """Where it begins in the file, in bytes."""
    size_bytes: int
    crc32: int | None = None
    """What its archive says of the whole run; compared when the run is read, None where nothing says it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A strided view of a storage and its place in the tensor; sizes, strides and starts are in elements."""

    storage: Storage
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    at: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """One tensor to be written: its pieces tile its shape exactly (checked by `coverage`)."""

    name: str
    dtype: str
    """Key of ITEM_BYTES."""
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes it takes when written."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor of *shape*, in elements."""
    strides = [1] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * max(1, shape[axis + 1])
    return tuple(strides)


def whole(name: str, dtype: str, shape: tuple[int, ...], storage: Storage, start: int = 0) -> SourceTensor:
    """Return a tensor that lies contiguously in *storage* from element *start* on."""
    piece = Piece(storage, start, shape, row_major(shape), (0,) * len(shape))
    return SourceTensor(name, dtype, shape, (piece,))
