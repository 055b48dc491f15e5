"""The header of a safetensors file: names, types, and exact coverage of the file's bytes.

Format: https://github.com/huggingface/safetensors (header size in 8 bytes little-endian, JSON, tensors).
"""

from __future__ import annotations

from typing import Any, Final

from control_plane.admission import bounded_json
from control_plane.admission.base import ReceivedFile, Refusal
from control_plane.admission.reasons import ReasonCode

MAX_HEADER_BYTES: Final = 32 * 1024 * 1024
MAX_NAME_CHARS: Final = 1024
BITS: Final = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Element type → size of one element in bits."""


def tensor_names(file: ReceivedFile) -> frozenset[str]:
    """Return the names of the tensors in *file* after checking that they tile its bytes exactly.

    Raises Refusal for a damaged, cut or contrived file.
    """
    header = _header(file)
    spans = sorted(_span(name, entry, file) for name, entry in header.items() if name != "__metadata__")
    if not spans:
        raise _broken(file, "it holds no tensor")
    position = 0
    for start, end, name in spans:
        if start != position:
            raise _broken(file, f"its tensor {name[:80]} overlaps another or leaves a hole")
        position = end
    if position != file.size_bytes - 8 - _header_size(file):
        raise _broken(file, "its tensors do not end where the file ends")
    return frozenset(name for _, _, name in spans)


def _header_size(file: ReceivedFile) -> int:
    size = int.from_bytes(file.head(8), "little")
    if file.size_bytes < 10 or size > min(MAX_HEADER_BYTES, file.size_bytes - 8):
        raise _broken(file, "its header does not fit into the file")
    return size


def _header(file: ReceivedFile) -> dict[str, Any]:
    raw = file.head(8 + _header_size(file))[8:]
    if not raw.startswith(b"{"):
        raise _broken(file, "its header does not begin with an object")
    return bounded_json.parse(raw, file.path)


def _span(name: str, entry: Any, file: ReceivedFile) -> tuple[int, int, str]:
    """Return (start, end, name) of a tensor whose offsets agree with its type and shape."""
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise _broken(file, f"a tensor is called {name[:80]!r}")
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(end)]} if (
            len(entry) == 3
        ):
            pass
        case _:
            raise _broken(file, f"the entry of its tensor {name[:80]} is malformed")
    bits = BITS.get(dtype)
    if bits is None or not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 64:
        raise _broken(file, f"its tensor {name[:80]} has the type {dtype[:20]} and shape {str(shape)[:80]}")
    count = 1
    for size in shape:
        count = min(count * size, 1 << 64)  # past any file's size: stop growing
    if not 0 <= start <= end or (end - start) * 8 != count * bits:
        raise _broken(file, f"the offsets of its tensor {name[:80]} do not fit its shape")
    return start, end, name


def _broken(file: ReceivedFile, why: str) -> Refusal:
    return Refusal(
        ReasonCode.BROKEN_WEIGHTS,
        f"{file.path} is not a whole safetensors file: {why}",
        "Save the weights again with model.save_pretrained(folder) and check that the whole file was copied.",
        file=file.path,
    )
