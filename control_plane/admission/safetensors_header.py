"""The header of a safetensors file: names, types, and exact coverage of the file's bytes.

Format: https://github.com/huggingface/safetensors (header size in 8 bytes little-endian, JSON, tensors).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Final

from control_plane.admission import bounded_json
from control_plane.admission.base import ReceivedFile, Refusal
from control_plane.admission.coverage import is_shape
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.tensors import SourceTensor, Storage, whole

MAX_HEADER_BYTES: Final = 32 * 1024 * 1024
MAX_NAME_CHARS: Final = 1024
TYPE_NAME: Final = re.compile(r"[A-Z][A-Z0-9_]{1,19}")
"""What the format's names of element types look like; newer writers know more than are in `BITS`."""
BITS: Final = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Element type → size of one element in bits."""


def header(file: ReceivedFile) -> dict[str, Any]:
    """Return the header of *file*, unchecked but for its size and its JSON. Raises Refusal."""
    raw = file.head(8 + _header_size(file))[8:]
    if not raw.startswith(b"{"):
        raise _broken(file, "its header does not begin with an object")
    return bounded_json.parse(raw, file.path)


def tensor_names(file: ReceivedFile) -> frozenset[str]:
    """Return the names of the tensors in *file* after checking that they tile its bytes exactly.

    Raises Refusal for a damaged, cut or contrived file.
    """
    return frozenset(entry.name for entry in _entries(file))


def tensors(file: ReceivedFile) -> tuple[SourceTensor, ...]:
    """Return the tensors in *file* and where they lie, after the same check, in the file's order."""
    begin = 8 + _header_size(file)
    return tuple(
        whole(entry.name, entry.dtype, entry.shape, Storage(file.location, begin + entry.start, entry.size))
        for entry in _entries(file)
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    start: int
    end: int
    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.end - self.start


def _entries(file: ReceivedFile) -> list[_Entry]:
    """Return the header's tensors in the order of their bytes."""
    found = [_entry(name, entry, file) for name, entry in header(file).items() if name != "__metadata__"]
    if not found:
        raise _broken(file, "it holds no tensor")
    found.sort(key=lambda entry: (entry.start, entry.end, entry.name))
    position = 0
    for entry in found:
        if entry.start != position:
            raise _broken(file, f"its tensor {entry.name[:80]} overlaps another or leaves a hole")
        position = entry.end
    if position != file.size_bytes - 8 - _header_size(file):
        raise _broken(file, "its tensors do not end where the file ends")
    return found


def _header_size(file: ReceivedFile) -> int:
    size = int.from_bytes(file.head(8), "little")
    if file.size_bytes < 10 or size > min(MAX_HEADER_BYTES, file.size_bytes - 8):
        raise _broken(file, "its header does not fit into the file")
    return size


def _entry(name: str, entry: Any, file: ReceivedFile) -> _Entry:
    """Return a tensor whose offsets agree with its type and shape."""
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise _broken(file, f"a tensor is called {name[:80]!r}")
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]} if (
            len(entry) == 3
        ):
            pass
        case _:
            raise _broken(file, f"the entry of its tensor {name[:80]} is malformed")
    bits = _bits(dtype, name, file)
    if not is_shape(shape):
        raise _broken(file, f"its tensor {name[:80]} has the shape {str(shape[:8])[:80]}")
    if not 0 <= start <= end or (end - start) * 8 != math.prod(shape) * bits:
        raise _broken(file, f"the offsets of its tensor {name[:80]} do not fit its shape")
    return _Entry(start, end, name, dtype, tuple(shape))


def _bits(dtype: str, name: str, file: ReceivedFile) -> int:
    """Return the bits of one element. Raises Refusal for a type that is not known here."""
    if dtype in BITS:
        return BITS[dtype]
    if not TYPE_NAME.fullmatch(dtype):
        raise _broken(file, f"its tensor {name[:80]} has the type {dtype[:20]}")
    raise Refusal(
        ReasonCode.UNSUPPORTED_TENSOR,
        f"{file.path} holds the tensor {name[:80]}: its element type {dtype} is not supported",
        "Save it as a type that torch computes with, such as BF16 or F8_E4M3.",
        file=file.path,
        member=name[:120],
    )


def _broken(file: ReceivedFile, why: str) -> Refusal:
    return Refusal(
        ReasonCode.BROKEN_WEIGHTS,
        f"{file.path} is not a whole safetensors file: {why}",
        "Save the weights again with model.save_pretrained(folder) and check that the whole file was copied.",
        file=file.path,
    )
