"""Tensors between their wire forms (JSON lists, raw bytes) and numpy arrays. Pure.

Raw form (Open Inference Protocol, binary tensor extension): little-endian, row-major, no padding; BOOL is one
byte; a BYTES element is a little-endian uint32 length and that many bytes; BF16 is a float32's upper half.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np

from serving_agent.datatypes import FLOATS, NUMPY_TYPE, Array, wire_size
from serving_agent.errors import InvalidRequestError

LITTLE_ENDIAN: Final = sys.byteorder == "little"
SIZE: Final = struct.Struct("<I")
"""What stands before a BYTES element."""
WIDE: Final = 8
"""Bytes of numbers that are brought to float64 first; smaller ones become any float at once, as exactly."""


def flatten(data: Sequence[Any], name: str) -> tuple[list[Any], tuple[int, ...]]:
    """Return the leaves of nested lists, row-major, and the sizes of the levels.

    Raises InvalidRequestError where lists of one level differ in length or stand beside scalars.
    """
    level: list[Any] = list(data)
    shape = [len(level)]
    while list in (kinds := set(map(type, level))):
        if len(kinds) > 1:
            raise InvalidRequestError(f"input {name!r}: data mixes lists and values on one level")
        sizes = set(map(len, level))
        if len(sizes) > 1:
            raise InvalidRequestError(
                f"input {name!r}: data is ragged: rows hold {_few(sorted(sizes))} elements"
            )
        shape.append(sizes.pop())
        level = list(chain.from_iterable(level))
    return level, tuple(shape)


def from_values(values: Sequence[Any], datatype: str, name: str) -> Array:
    """Return a flat array of JSON or protobuf scalars. Raises InvalidRequestError naming the first misfit."""
    if datatype == "BYTES":
        return _bytes_array(values, name)
    kinds = set(map(type, values))
    if wrong := kinds - _allowed(datatype):
        raise InvalidRequestError(_misfit(values, wrong, datatype, name))
    if datatype in FLOATS:
        return _float_array(values, datatype, name)
    try:
        return np.array(values, dtype=NUMPY_TYPE[datatype])
    except OverflowError:
        raise InvalidRequestError(_overflow(values, datatype, name)) from None


def from_numbers(numbers: Array, datatype: str, name: str) -> Array:
    """Return *numbers*, integers, float64 or of *datatype* already, as a flat array of *datatype*.

    Raises InvalidRequestError where one does not fit.
    """
    if numbers.dtype == NUMPY_TYPE[datatype]:
        return numbers
    if datatype in FLOATS:
        exact = numbers if numbers.dtype.itemsize < WIDE else numbers.astype(np.float64, copy=False)
        return _narrowed(exact, datatype, name)
    if datatype in ("BOOL", "BYTES") or numbers.dtype == np.float64:
        return from_values(numbers.tolist(), datatype, name)  # says which one does not fit
    bounds = np.iinfo(NUMPY_TYPE[datatype])
    if int(numbers.min()) < bounds.min or int(numbers.max()) > bounds.max:
        raise InvalidRequestError(_overflow(numbers.tolist(), datatype, name))
    return numbers.astype(NUMPY_TYPE[datatype], copy=False)


def from_raw(data: memoryview | bytes, count: int, datatype: str, name: str) -> Array:
    """Return a flat array of *count* elements in raw form; it may share memory with *data*.

    Raises InvalidRequestError where the size does not fit.
    """
    size = wire_size(datatype)
    if size is None:
        return _bytes_from_raw(bytes(data), count, name)
    if len(data) != count * size:
        raise InvalidRequestError(
            f"input {name!r}: {len(data)} bytes of data, but the shape holds {count} {datatype} elements "
            f"of {size} bytes"
        )
    if datatype == "BF16":
        upper = np.frombuffer(data, dtype="<u2").astype(np.uint32)
        widened: Array = (upper << np.uint32(16)).view(np.float32)
        return widened
    if datatype == "BOOL":
        return np.frombuffer(data, dtype=np.uint8).astype(np.bool_)
    return _native(np.frombuffer(data, dtype=NUMPY_TYPE[datatype].newbyteorder("<")))


def to_raw(array: Array, datatype: str) -> bytes | memoryview:
    """Return *array* in raw form; it may be a view of it."""
    if datatype == "BYTES":
        return b"".join([SIZE.pack(len(item)) + item for item in array.ravel().tolist()])
    if datatype == "BF16":
        bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
        return bytes((bits >> 16).astype("<u2").tobytes())
    plain = np.ascontiguousarray(array, dtype=NUMPY_TYPE[datatype].newbyteorder("<"))
    return plain.reshape(-1).view(np.uint8).data


def to_json(array: Array, datatype: str) -> Any:
    """Return *array* in a form orjson writes: the array itself, or lists of strings for BYTES.

    Raises UnicodeDecodeError where a BYTES element is not UTF-8.
    """
    if datatype == "BYTES":
        return (
            np.array([item.decode() for item in array.ravel().tolist()], dtype=object)
            .reshape(array.shape)
            .tolist()
        )
    return np.ascontiguousarray(array)


def is_finite(array: Array, datatype: str) -> bool:
    """Tell whether no element is NaN or infinite; true for what is not floating point."""
    return datatype not in FLOATS or bool(np.isfinite(array).all())


def _allowed(datatype: str) -> set[type]:
    if datatype == "BOOL":
        return {bool}
    return {int, float} if datatype in FLOATS else {int}


def _float_array(values: Sequence[Any], datatype: str, name: str) -> Array:
    if datatype == "FP32" and (plain := _plain_floats(values)) is not None:
        return plain
    try:
        exact = np.array(values, dtype=np.float64)
    except OverflowError:
        raise InvalidRequestError(_overflow(values, datatype, name)) from None
    return _narrowed(exact, datatype, name)


def _plain_floats(values: Sequence[Any]) -> Array | None:
    """Return *values* as float32, the shortest way; None where one is out of range."""
    try:
        plain = np.frombuffer(memoryview(array("f", values)), np.float32)
    except OverflowError:  # an integer that no double holds
        return None
    return plain if np.isfinite(plain).all() else None


def _narrowed(exact: Array, datatype: str, name: str) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        array = exact.astype(NUMPY_TYPE[datatype], copy=False)
        if datatype == "BF16":
            array = _round_to_bf16(array)
    if not np.isfinite(array).all() and (lost := np.isinf(array) & np.isfinite(exact)).any():
        raise InvalidRequestError(f"input {name!r}: {exact[lost][0]!s} does not fit {datatype}")
    return array


def _round_to_bf16(array: Array) -> Array:
    """Round float32 to the nearest value that BF16 holds, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
    return np.where(np.isnan(array), np.float32(np.nan), rounded)


def _bytes_array(values: Sequence[Any], name: str) -> Array:
    # not np.array: it would go through a fixed-width type and lose trailing zero bytes
    kinds = set(map(type, values))
    if kinds == {str}:
        values = list(map(str.encode, values))
    elif kinds - {bytes}:
        values = [_to_bytes(value, name) for value in values]
    return np.fromiter(values, dtype=object, count=len(values))


def _to_bytes(value: Any, name: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise InvalidRequestError(f"input {name!r}: {_show(value)} is not a string, which BYTES needs")


def _bytes_from_raw(data: bytes, count: int, name: str) -> Array:
    if len(data) < 4 * count:
        raise InvalidRequestError(
            f"input {name!r}: {len(data)} bytes of data cannot hold {count} BYTES elements"
        )
    items = _of_one_size(data, count)
    return _bytes_array(_of_any_size(data, count, name) if items is None else items, name)


def _of_one_size(data: bytes, count: int) -> list[bytes] | None:
    """Return *count* BYTES elements whose sizes are equal; None where they are not."""
    width, rest = divmod(len(data), max(count, 1))
    if count < 1 or rest or width < SIZE.size:
        return None
    rows = np.frombuffer(data, np.uint8).reshape(count, width)
    if (rows[:, : SIZE.size] != np.frombuffer(SIZE.pack(width - SIZE.size), np.uint8)).any():
        return None
    return [data[start : start + width - SIZE.size] for start in range(SIZE.size, len(data) + 1, width)]


def _of_any_size(data: bytes, count: int, name: str) -> list[bytes]:
    items: list[bytes] = []
    offset, last, size_at = 0, len(data) - SIZE.size, SIZE.unpack_from
    while offset <= last and len(items) < count:
        start = offset + SIZE.size
        offset = start + size_at(data, offset)[0]
        items.append(data[start:offset])
    if offset != len(data) or len(items) != count:
        raise InvalidRequestError(f"input {name!r}: the data does not hold exactly {count} BYTES elements")
    return items


def _native(array: Array) -> Array:
    return array if LITTLE_ENDIAN else array.astype(array.dtype.newbyteorder("="))


def _misfit(values: Sequence[Any], wrong: set[type], datatype: str, name: str) -> str:
    value = next(value for value in values if type(value) in wrong)
    wanted = "a boolean" if datatype == "BOOL" else f"of type {datatype}"
    return f"input {name!r}: {_show(value)} is not {wanted}"


def _overflow(values: Sequence[Any], datatype: str, name: str) -> str:
    if datatype in FLOATS:
        return f"input {name!r}: a number does not fit {datatype}"
    bounds = np.iinfo(NUMPY_TYPE[datatype])
    value = next(value for value in values if not bounds.min <= value <= bounds.max)
    return f"input {name!r}: {value} does not fit {datatype}, which holds {bounds.min} to {bounds.max}"


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f"the string {value[:40]!r}"
    return str(value)[:40] if isinstance(value, int | float) else "an object"


def _few(sizes: list[int]) -> str:
    return ", ".join(str(size) for size in sizes[:4]) + (" …" if len(sizes) > 4 else "")
