"""Reading the weights of an artefact in blocks, as numbers: safetensors, any element type, constant memory.

Format: https://github.com/huggingface/safetensors (header size in 8 bytes little-endian, JSON, tensors). The
8-bit floats are those of the OCP 8-bit Floating Point Specification (OFP8) and of OCP Microscaling (E8M0).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from control_plane.errors import ConflictError

SUFFIX: Final = ".safetensors"
BLOCK_ELEMENTS: Final = 1 << 18
"""Elements read at a time: at most 4 MiB as they lie, 2 MiB as float64."""
_PLAIN: Final = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
}  # fmt: skip
_FLOAT8: Final = {"F8_E4M3": (4, 3, 7, "fn"), "F8_E5M2": (5, 2, 15, "ieee"), "F8_E8M0": (8, 0, 127, "scale")}
"""Element type → bits of exponent and mantissa, bias, and which codes are special."""
_SEE: Final = "See `signalbox versions verify` for what happened to it."

Block = npt.NDArray[Any]
Numbers = npt.NDArray[np.float64] | npt.NDArray[np.complex128]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor of an artefact lies."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    """Of its first byte in the file."""
    size_bytes: int

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)


def index(folder: Path, names: Iterable[str]) -> dict[str, StoredTensor]:
    """The tensors of the safetensors files *names* of *folder*, by name.

    A name that stands in two files is followed by its file's. Raises ConflictError for a file that is none.
    """
    found: dict[str, StoredTensor] = {}
    for name in sorted(each for each in names if each.endswith(SUFFIX)):
        for tensor, stored in _header(folder / name).items():
            found[f"{tensor} ({name})" if tensor in found else tensor] = stored
    return found


def _header(path: Path) -> Mapping[str, StoredTensor]:
    try:
        with path.open("rb") as file:
            size, whole = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
            if size > whole:
                raise ValueError("its header does not fit into the file")
            entries = json.loads(file.read(size))
        return {
            name: _stored(path, entry, 8 + size, whole)
            for name, entry in entries.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConflictError(
            f"The stored {path.name} cannot be read: {error}",
            next_step=_SEE,
        ) from error


def _stored(path: Path, entry: Mapping[str, Any], begin: int, file_bytes: int) -> StoredTensor:
    start, end = entry["data_offsets"]
    if not 0 <= start <= end <= file_bytes - begin:
        raise ValueError("it is shorter than its header says")
    return StoredTensor(path, str(entry["dtype"]), tuple(entry["shape"]), begin + start, end - start)


def blocks(tensor: StoredTensor) -> Iterator[Block]:
    """Its elements in order, BLOCK_ELEMENTS at a time, as they lie: one numpy element each.

    Where the element type is not known to us, single bytes.
    """
    kind = np.dtype(raw_kind(tensor.dtype))
    with tensor.path.open("rb", buffering=0) as file:
        position, end = tensor.offset, tensor.offset + tensor.size_bytes
        while position < end:
            data = os.pread(file.fileno(), min(end - position, BLOCK_ELEMENTS * kind.itemsize), position)
            whole = len(data) - len(data) % kind.itemsize
            if not whole:
                raise ConflictError(
                    f"The stored {tensor.path.name} is shorter than its header says", next_step=_SEE
                )
            position += whole
            yield np.frombuffer(data[:whole], kind)


def raw_kind(dtype: str) -> str:
    """numpy's name for what one element of *dtype* is read as."""
    return _PLAIN.get(dtype) or ("<u2" if dtype == "BF16" else "u1")


def is_numeric(dtype: str) -> bool:
    """Whether elements of *dtype* can be read as numbers."""
    return dtype in _PLAIN or dtype in _FLOAT8 or dtype == "BF16"


def numbers(block: Block, dtype: str) -> Numbers:
    """A block of elements of *dtype* as float64 (complex128 for C64); integers beyond 2^53 are rounded."""
    if dtype == "BF16":
        return (block.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if dtype in _FLOAT8:
        return _values(dtype)[block]
    return block.astype(np.complex128) if dtype == "C64" else block.astype(np.float64)


@cache
def _values(dtype: str) -> npt.NDArray[np.float64]:
    """The value of each of the 256 codes of an 8-bit float."""
    return np.array([_value(code, *_FLOAT8[dtype]) for code in range(256)], np.float64)


def _value(code: int, exponent_bits: int, mantissa_bits: int, bias: int, special: str) -> float:
    if special == "scale":
        return math.nan if code == 0xFF else 2.0 ** (code - bias)
    sign = -1.0 if code & 0x80 else 1.0
    exponent = (code & 0x7F) >> mantissa_bits
    mantissa = code & ((1 << mantissa_bits) - 1)
    top = (1 << exponent_bits) - 1
    if special == "fn" and code & 0x7F == 0x7F:
        return math.nan
    if special == "ieee" and exponent == top:
        return math.nan if mantissa else sign * math.inf
    fraction = mantissa / (1 << mantissa_bits)
    if exponent == 0:
        return sign * fraction * 2.0 ** (1 - bias)
    return sign * (1 + fraction) * 2.0 ** (exponent - bias)
