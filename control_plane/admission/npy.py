"""NumPy's array files, read without NumPy: the header says type, order and shape; the data follows it.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, versions 1.0 to 3.0.
"""

from __future__ import annotations

import ast
import math
from typing import Any, Final

from control_plane.admission.base import Refusal
from control_plane.admission.coverage import is_shape
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.tensors import ITEM_BYTES, Piece, SourceTensor, Storage, row_major

MAGIC: Final = b"\x93NUMPY"
MAX_HEADER_BYTES: Final = 10_000
"""What numpy.load itself reads without being asked to."""
HEAD_BYTES: Final = MAX_HEADER_BYTES + 12
DTYPES: Final = {
    "b1": "BOOL", "u1": "U8", "i1": "I8", "u2": "U16", "i2": "I16", "f2": "F16", "u4": "U32", "i4": "I32",
    "f4": "F32", "u8": "U64", "i8": "I64", "f8": "F64", "c8": "C64",
}  # fmt: skip
"""NumPy's type without its byte order → safetensors' name."""
SAVE_ARRAYS: Final = "Save plain arrays of numbers: numpy.savez('model.npz', **{name: array, ...})."


def tensor(name: str, head: bytes, storage: Storage, file: str) -> SourceTensor:
    """Return the array in *storage*, whose first bytes (`HEAD_BYTES` or all) are *head*, as a tensor.

    Raises Refusal; *file* names the upload in it.
    """
    begin, header = _header(head, name, file)
    dtype = _dtype(header["descr"], name, file)
    shape, fortran = header["shape"], header["fortran_order"]
    if not isinstance(shape, tuple) or not is_shape(shape) or not isinstance(fortran, bool):
        raise _broken(name, "its shape is malformed", file)
    if begin + math.prod(shape) * ITEM_BYTES[dtype] != storage.size_bytes:
        raise _broken(name, "it is cut, or other data follows it", file)
    strides = tuple(reversed(row_major(shape[::-1]))) if fortran else row_major(shape)
    return _placed(name, dtype, shape, strides, storage, begin)


def _placed(
    name: str, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], storage: Storage, begin: int
) -> SourceTensor:
    """Return the tensor whose data begins at byte *begin* of *storage*.

    The checksum is only kept where that is a whole number of elements, as NumPy aligns it.
    """
    item = ITEM_BYTES[dtype]
    if begin % item == 0:
        piece = Piece(storage, begin // item, shape, strides, (0,) * len(shape))
    else:
        data = Storage(storage.location, storage.offset + begin, storage.size_bytes - begin)
        piece = Piece(data, 0, shape, strides, (0,) * len(shape))
    return SourceTensor(name, dtype, shape, (piece,))


def _header(head: bytes, name: str, file: str) -> tuple[int, dict[str, Any]]:
    """Return where the data begins, and the header."""
    if head[:6] != MAGIC or head[6:7] not in (b"\x01", b"\x02", b"\x03"):
        raise _broken(name, "it is no NumPy array", file)
    width = 2 if head[6] == 1 else 4
    begin = 8 + width + int.from_bytes(head[8 : 8 + width], "little")
    text = head[8 + width : begin]
    if begin > len(head) or len(text) > MAX_HEADER_BYTES:
        raise _broken(name, "its header is cut or too long", file)
    try:
        header = ast.literal_eval(text.decode("utf-8" if head[6] == 3 else "latin-1").strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        raise _broken(name, "its header cannot be read", file) from None
    if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
        raise _broken(name, "its header cannot be read", file)
    return begin, header


def _dtype(descr: Any, name: str, file: str) -> str:
    if not isinstance(descr, str) or descr[:1] not in "<|>=" or descr[1:] not in DTYPES:
        raise Refusal(
            ReasonCode.NUMPY,
            f"the array {name[:120]} of {file} holds {str(descr)[:40]!r}, which is no plain number",
            SAVE_ARRAYS,
            file=file,
            member=name[:120],
        )
    if descr[0] == ">" and descr[2:] != "1":
        raise Refusal(
            ReasonCode.BIG_ENDIAN,
            f"the array {name[:120]} of {file} is big-endian",
            "Save it in little-endian order: array.astype(array.dtype.newbyteorder('<')).",
            file=file,
            member=name[:120],
        )
    return DTYPES[descr[1:]]


def _broken(name: str, why: str, file: str) -> Refusal:
    return Refusal(
        ReasonCode.BROKEN_WEIGHTS,
        f"the array {name[:120]} of {file} is damaged: {why}",
        f"Check that the whole file was copied. {SAVE_ARRAYS}",
        file=file,
        member=name[:120],
    )
