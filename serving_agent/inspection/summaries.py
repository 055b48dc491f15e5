"""Tensors as the contract tells of them: figures, and elements in the file where there is room."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from serving_agent import tensors
from serving_agent.contract.inspection import TensorSummary
from serving_agent.datatypes import DATATYPE_OF_TORCH, NUMPY_TYPE
from serving_agent.inspection import statistics
from serving_agent.inspection.values_file import ValuesFile

REMEMBERED: Final = 8
"""Tensors of which a copy is held, to tell a container's output from its last layer's."""
REMEMBERED_BYTES: Final = 16 << 20
"""Larger ones are not held."""
DATATYPE_OF_NUMPY: Final = {
    str(kind): datatype for datatype, kind in NUMPY_TYPE.items() if datatype not in ("BF16", "BYTES")
}

COMPLEX: Final = (
    "Complex numbers have no order: zeros, NaN and infinities are counted, elements are not kept."
)

Array = npt.NDArray[Any]


class _Told(NamedTuple):
    """What a tensor is, and where it lies; None for the address where that is not told."""

    datatype: str
    elements: int
    device: str
    address: tuple[Any, ...] | None
    """Its first element's, and its strides where elements do not lie one after the other."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A tensor that was summed up: a copy of it, and what was said."""

    copy: Array
    summary: TensorSummary


class UnreadableError(Exception):
    """A tensor's elements cannot be had; the message says why."""


class Summaries:
    """Sums tensors up, each with its elements in the file while there is room."""

    def __init__(self, values: ValuesFile) -> None:
        self._values = values
        self._kept: dict[_Told, _Kept] = {}
        """The last few, oldest first."""

    def of(self, name: str, value: Any) -> TensorSummary:
        """Return the summary of *value*, a tensor, an array or a number.

        Raises UnreadableError, and OSError where the disk is full.
        """
        if isinstance(value, bool | int | float):
            value = _of_number(value)
        if isinstance(value, np.ndarray):
            value = _shown_as(value)
            datatype = _datatype_of(value)
            if value.dtype.kind == "c":
                return _of_complex(name, datatype, tuple(value.shape), "cpu", value)
            place = value.__array_interface__["data"][0]
            address = (place, None if value.flags.c_contiguous else (value.strides, value.shape))
            return self._once(name, tuple(value.shape), _Told(datatype, value.size, "cpu", address), value)
        shape = tuple(int(size) for size in value.shape)
        datatype = DATATYPE_OF_TORCH.get(str(value.dtype), str(value.dtype).removeprefix("torch."))
        if value.dtype.is_complex:
            return _of_complex(name, datatype, shape, str(value.device), _complex_array(value))
        array = readable(value)
        told = _Told(datatype, array.size, str(value.device), _address(value))
        return self._once(name, shape, told, array)

    def _once(self, name: str, shape: tuple[int, ...], told: _Told, array: Array) -> TensorSummary:
        """Sum up *array*, unless it is one of the last few: a container's output, or one in another shape."""
        kept = self._kept.get(told) if told.address is not None else None
        if kept is not None and _same(kept.copy, array):
            return msgspec.structs.replace(kept.summary, name=name, shape=shape)
        summary = self._summed(name, told.datatype, shape, told.device, array)
        if told.address is not None and array.dtype != object and 0 < array.nbytes <= REMEMBERED_BYTES:
            self._kept.pop(told, None)
            self._kept[told] = _Kept(array.copy(), summary)
            if len(self._kept) > REMEMBERED:
                del self._kept[next(iter(self._kept))]
        return summary

    def _summed(
        self, name: str, datatype: str, shape: tuple[int, ...], device: str, array: Array
    ) -> TensorSummary:
        data: memoryview | bytes
        if array.dtype == object:
            kept, data = "BYTES", _texts(array)
            seen = statistics.Figures(elements=array.size)
        else:
            array = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
            kept = DATATYPE_OF_NUMPY[str(array.dtype)]
            data = tensors.to_raw(array, kept)
            seen = statistics.figures(array)
        offset = self._values.add(data)
        return TensorSummary(
            name=name,
            datatype=datatype,
            shape=shape,
            device=device,
            elements=seen.elements,
            zeros=seen.zeros,
            nan=seen.nan,
            inf=seen.inf,
            low=seen.low,
            high=seen.high,
            mean=seen.mean,
            std=seen.std,
            histogram=seen.histogram,
            offset=offset,
            kept_datatype="" if offset is None else kept,
            kept_bytes=0 if offset is None else len(data),
        )


def readable(tensor: Any) -> Array:
    """Return the elements of a real *tensor* as an array on the CPU, in the form in which VALUES has them.

    Raises UnreadableError.
    """
    import torch

    try:
        plain = tensor.detach()
        if plain.is_quantized or hasattr(plain, "qdata"):
            plain = plain.dequantize()
        if plain.layout != torch.strided:
            plain = plain.to_dense()
        plain = plain.cpu()
        if str(plain.dtype) not in DATATYPE_OF_TORCH or plain.dtype == torch.bfloat16:
            plain = plain.float()
        array: Array = plain.resolve_neg().contiguous().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise UnreadableError(f"its elements cannot be read: {str(error).splitlines()[0]}") from error
    return array


def _same(one: Array, other: Array) -> bool:
    """Whether both hold the same bits."""
    return bool(
        one.nbytes == other.nbytes
        and (one.reshape(-1).view(np.uint8) == other.reshape(-1).view(np.uint8)).all()
    )


def _of_number(value: float) -> Array:
    if isinstance(value, bool):
        return np.asarray(value)
    try:
        return np.asarray(value, dtype=np.int64 if isinstance(value, int) else np.float64)
    except OverflowError:
        return np.asarray(value, dtype=np.float64)


def _shown_as(array: Array) -> Array:
    """Return *array*, texts of a fixed width as BYTES. Raises UnreadableError for what is no number."""
    if array.dtype.kind in "US":
        return array.astype(object)
    if array.dtype != object and array.dtype.kind != "c" and _datatype_of(array) not in NUMPY_TYPE:
        raise UnreadableError(f"its elements are of type {array.dtype}, which is not read")
    return array


def _datatype_of(array: Array) -> str:
    if array.dtype == object:
        return "BYTES"
    name = str(array.dtype.newbyteorder("="))
    return DATATYPE_OF_NUMPY.get(name, name)


def _address(tensor: Any) -> tuple[Any, ...] | None:
    import torch

    if tensor.layout != torch.strided or tensor.device.type != "cpu" or type(tensor) is not torch.Tensor:
        return None
    return (tensor.data_ptr(), None if tensor.is_contiguous() else (tensor.stride(), tensor.shape))


def _complex_array(tensor: Any) -> Array:
    import torch

    plain = tensor.detach().cpu()
    if plain.dtype == torch.complex32:
        plain = plain.to(torch.complex64)
    array: Array = plain.resolve_conj().resolve_neg().numpy()
    return array


def _of_complex(name: str, datatype: str, shape: tuple[int, ...], device: str, array: Array) -> TensorSummary:
    """Complex numbers have no order: they are counted, and not kept."""
    return TensorSummary(
        name=name,
        datatype=datatype,
        shape=shape,
        device=device,
        elements=array.size,
        zeros=int((array == 0).sum()),
        nan=int(np.isnan(array).sum()),
        inf=int(np.isinf(array).sum()),
        not_read=COMPLEX,
    )


def unread(name: str, value: Any, why: str) -> TensorSummary:
    """Return what can be said of *value*, whose elements cannot be had."""
    shape = tuple(int(size) for size in value.shape)
    return TensorSummary(
        name=name,
        datatype=str(value.dtype).removeprefix("torch."),
        shape=shape,
        device=str(getattr(value, "device", "cpu")),
        elements=math.prod(shape),
        not_read=f"{why[:1].upper()}{why[1:]}.",
    )


def _texts(array: Array) -> bytes:
    """BYTES elements as a JSON list of strings; what is not UTF-8 is replaced."""
    return msgspec.json.encode(
        [item.decode(errors="replace") if isinstance(item, bytes) else str(item) for item in array.ravel()]
    )
