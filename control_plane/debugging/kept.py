"""Elements of tensors that a run has kept: read from its VALUES file by memory map, never as a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from serving_agent.contract.inspection import RUN, VALUES, InspectedRun, Point, TensorSummary
from serving_agent.datatypes import NUMPY_TYPE

Array = npt.NDArray[Any]
SCANNED: Final = 1 << 20
"""Elements looked at in one piece."""
MAX_TEXT_BYTES: Final = 64 * 1024**2
"""Largest kept BYTES tensor that is read: as JSON it cannot be mapped."""
MAX_RUN_BYTES: Final = 64 * 1024**2


class NotKeptError(Exception):
    """The elements are not there; the message says why, as a sentence without a full stop."""

    def __init__(self, message: str, next_step: str | None = None) -> None:
        super().__init__(message)
        self.next_step = next_step


def read_run(folder: Path) -> InspectedRun:
    """The run in *folder*. Raises OSError, and NotKeptError where the file cannot be read."""
    file = folder / RUN
    if file.stat().st_size > MAX_RUN_BYTES:
        raise NotKeptError(f"its record has more than {MAX_RUN_BYTES // 1024**2} MiB")
    try:
        return msgspec.json.decode(file.read_bytes(), type=InspectedRun)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotKeptError(f"its record cannot be read: {error}") from error


def elements(folder: Path, tensor: TensorSummary) -> Array:
    """The tensor's elements in its shape, without reading them before they are used.

    BYTES are an object array of `str`. Raises NotKeptError.
    """
    if tensor.not_read:
        raise NotKeptError(tensor.not_read[:1].lower() + tensor.not_read[1:].rstrip("."))
    if tensor.offset is None:
        raise NotKeptError(
            "its elements were not kept: the run's bytes were used up before",
            next_step="Raise SIGNALBOX_DEBUG_RUN_BYTES and run it again.",
        )
    try:
        if tensor.kept_datatype == "BYTES":
            return _texts(folder, tensor, tensor.offset)
        return _mapped(folder, tensor, tensor.offset)
    except (OSError, ValueError) as error:
        raise NotKeptError(f"its elements cannot be read: {error}") from error


def bounds(
    shape: Sequence[int], start: Sequence[int], stop: Sequence[int], most: int
) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """(start, stop, whether it was cut): a part of *shape* with *most* elements at most. Pure.

    What is missing or beyond the shape is taken as the shape's own; where there is too much, the first
    dimensions are cut first, so that whole rows stay.
    """
    begin = [min(max(0, start[at]), size) if at < len(start) else 0 for at, size in enumerate(shape)]
    end = [min(max(begin[at], stop[at]), size) if at < len(stop) else size for at, size in enumerate(shape)]
    cut = False
    for at in range(len(shape)):
        if _count(begin, end) <= most:
            break
        inner = max(1, _count(begin[at + 1 :], end[at + 1 :]))
        outer = max(1, _count(begin[:at], end[:at]))
        end[at] = begin[at] + max(1, most // (inner * outer))
        cut = True
    return tuple(begin), tuple(end), cut


def tensor_of(run: InspectedRun, point: str, tensor: int | str) -> TensorSummary | None:
    """A tensor of the stage or the point called *point*, by its place or its name; None for none."""
    stage = next((each for each in run.stages if each.name == point), None)
    found = stage.tensors if stage is not None else outputs_of(run, point)
    if isinstance(tensor, int):
        return found[tensor] if 0 <= tensor < len(found) else None
    return next((each for each in found if each.name == tensor), None)


def outputs_of(run: InspectedRun, point: str) -> tuple[TensorSummary, ...]:
    """What the point with that id put out; nothing where there is no such point."""
    found = point_of(run, point)
    return found.outputs if found is not None else ()


def point_of(run: InspectedRun, point: str) -> Point | None:
    """The point with that id."""
    return next((each for each in run.points if each.id == point), None)


def first_wrong(array: Array) -> tuple[int, ...] | None:
    """Where the first NaN or infinity of *array* is, in C order; None where all is finite."""
    if array.dtype.kind != "f":
        return None
    flat = array.reshape(-1)
    for start in range(0, flat.size, SCANNED):
        wrong = np.flatnonzero(~np.isfinite(flat[start : start + SCANNED]))
        if wrong.size:
            return tuple(int(each) for each in np.unravel_index(start + int(wrong[0]), array.shape))
    return None


def _mapped(folder: Path, tensor: TensorSummary, offset: int) -> Array:
    if tensor.kept_datatype not in NUMPY_TYPE:
        raise NotKeptError(f"its elements are of type {tensor.kept_datatype[:40]!r}, which is none")
    kind = NUMPY_TYPE[tensor.kept_datatype].newbyteorder("<")
    if math.prod(tensor.shape) * kind.itemsize != tensor.kept_bytes:
        raise NotKeptError("fewer elements than its shape holds were kept")
    if not tensor.kept_bytes:
        return np.empty(tensor.shape, kind)
    return np.memmap(folder / VALUES, dtype=kind, mode="r", offset=offset, shape=tensor.shape)


def _texts(folder: Path, tensor: TensorSummary, offset: int) -> Array:
    if tensor.kept_bytes > MAX_TEXT_BYTES:
        raise NotKeptError(f"its texts have more than {MAX_TEXT_BYTES // 1024**2} MiB")
    with (folder / VALUES).open("rb") as file:
        file.seek(offset)
        texts = msgspec.json.decode(file.read(tensor.kept_bytes), type=list[str])
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    return array.reshape(tensor.shape)


def _count(begin: Sequence[int], end: Sequence[int]) -> int:
    return math.prod(high - low for low, high in zip(begin, end, strict=True))
