"""Elements of one tensor to look at: a two-dimensional window, pictures of channels, attention. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from control_plane.domain.debugging import MAX_VALUES, ValuesView
from control_plane.errors import InvalidInputError
from control_plane.ui.viewmodels import picture
from control_plane.ui.viewmodels.debugger_tensors import number

Array = npt.NDArray[Any]
SIDE: Final = 64
"""Most rows and columns of a window that are drawn at once."""
CHANNELS: Final = 32
"""Most channels that are drawn."""
LISTED: Final = 200
"""Most elements listed one by one."""
LEAST_SIDE: Final = 4
MOST_SIDE: Final = 256
"""Sides of a channel that is drawn as a picture."""
_SUMS_TO_ONE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Window:
    """A two-dimensional piece of a tensor: rows are the second to last dimension, columns the last."""

    shape: tuple[int, ...]
    fixed: tuple[int, ...]
    """Places in the dimensions before the last two."""
    row: int
    column: int
    """Where its first row and column lie."""

    @property
    def rows(self) -> int:
        """Rows that the tensor has."""
        return self.shape[-2] if len(self.shape) > 1 else 1

    @property
    def columns(self) -> int:
        """Columns that the tensor has."""
        return self.shape[-1] if self.shape else 1

    @property
    def start(self) -> tuple[int, ...]:
        """First place in every dimension."""
        return self.index(0, 0)

    @property
    def stop(self) -> tuple[int, ...]:
        """Behind the last place in every dimension."""
        ends = (
            *(place + 1 for place in self.fixed),
            min(self.row + SIDE, self.rows),
            min(self.column + SIDE, self.columns),
        )
        return ends[len(ends) - len(self.shape) :] if self.shape else ()

    def index(self, row: int, column: int) -> tuple[int, ...]:
        """Where a cell of the window lies in the tensor."""
        place = (*self.fixed, self.row + row, self.column + column)
        return place[len(place) - len(self.shape) :] if self.shape else ()

    @property
    def whole(self) -> bool:
        """Whether all rows and columns are in it."""
        return self.rows <= SIDE and self.columns <= SIDE


def leading(shape: Sequence[int]) -> tuple[int, ...]:
    """Sizes of the dimensions in which a place is chosen: all but the last two."""
    return tuple(shape[:-2])


def window(shape: Sequence[int], fixed: Sequence[int] = (), row: int = 0, column: int = 0) -> Window:
    """The piece at *fixed* that begins at *row* and *column*; places outside are brought inside."""
    sizes = leading(shape)
    places = [*fixed, *[0] * len(sizes)][: len(sizes)]
    inside = tuple(_inside(place, size) for place, size in zip(places, sizes, strict=True))
    rows, columns = ((1, 1, *shape)[-2:]) if len(shape) < 2 else shape[-2:]
    return Window(tuple(shape), inside, _inside(row, rows), _inside(column, columns))


def _inside(place: int, size: int) -> int:
    return max(0, min(place, size - 1))


def array(view: ValuesView) -> Array:
    """The part of a tensor as an array; texts as objects."""
    kind: Any = object if view.datatype == "BYTES" else None
    return np.array(view.values, dtype=kind)


def grid(view: ValuesView) -> Array:
    """The part of a tensor as rows and columns."""
    values = array(view)
    return values.reshape(values.shape[-2:]) if values.ndim >= 2 else values.reshape(1, -1)


def is_attention(values: Array) -> bool:
    """Whether rows of the last two dimensions are shares that add up to one, as attention's are."""
    if values.ndim < 2 or values.dtype.kind != "f" or min(values.shape[-2:]) < 2 or values.min() < 0.0:
        return False
    return bool(np.isfinite(values).all() and np.abs(values.sum(axis=-1) - 1.0).max() <= _SUMS_TO_ONE)


def channel_count(shape: Sequence[int], datatype: str) -> int:
    """How many channels of [N, C, H, W] are drawn as pictures; 0 where it is no stack of pictures."""
    if len(shape) != 4 or datatype == "BYTES":
        return 0
    if not all(LEAST_SIDE <= side <= MOST_SIDE for side in shape[2:]):
        return 0
    return min(CHANNELS, shape[1], MAX_VALUES // (shape[2] * shape[3]))


def channel_pictures(values: Array) -> tuple[tuple[str, str], ...]:
    """(data URL, title) of each channel of [1, C, H, W].

    Each goes from black at its own smallest value to white at its largest.
    """
    return tuple(_picture(plane, place) for place, plane in enumerate(values[0]))


def _picture(plane: Array, place: int) -> tuple[str, str]:
    finite = plane[np.isfinite(plane)].astype(np.float64)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    scale = 255.0 / (high - low) if high > low else 0.0
    grey = np.clip((np.nan_to_num(plane.astype(np.float64), nan=low) - low) * scale, 0, 255).astype(np.uint8)
    url = picture.grey_url([line.tobytes() for line in grey], grey.shape[1], grey.shape[0])
    return url, f"channel {place}: {number(low)} to {number(high)}"


def text_of(values: Array) -> list[str]:
    """Elements that are text, at most LISTED."""
    return [str(each) for each in values.ravel()[:LISTED].tolist()]


def maybe_image(shape: Sequence[int]) -> bool:
    """Whether a tensor of *shape* may be a batch of pictures whose first one can be read at once."""
    if len(shape) != 4 or not shape[0] or math.prod(shape[1:]) > MAX_VALUES:
        return False
    return shape[1] in (1, 3) or shape[3] in (1, 3)


def image_of(values: Array) -> str | None:
    """The first row of [N, 1 or 3, H, W] or [N, H, W, 3] as a picture; None where it is none."""
    if values.ndim != 4 or values.dtype.kind not in "fiu" or not values.shape[0]:
        return None
    first = np.asarray(values[0], dtype=np.float64)
    if first.shape[0] not in (1, 3) and first.shape[-1] in (1, 3):
        first = np.moveaxis(first, -1, 0)
    channels, height, width = first.shape
    sides = min(height, width) >= LEAST_SIDE and max(height, width) <= picture.MAX_SIDE
    if channels not in (1, 3) or not sides or not np.isfinite(first).all():
        return None
    return picture.data_url(first.tolist(), (channels, height, width))


def index_words(index: Sequence[int | None]) -> str:
    """A place: (0, None, 3) → "[0, :, 3]"; the whole tensor is "all elements"."""
    if not index or all(each is None for each in index):
        return "all elements"
    return f"[{', '.join(':' if each is None else str(each) for each in index)}]"


def parse_index(text: str, shape: Sequence[int]) -> tuple[int | None, ...]:
    """A place as typed: "0, :, 3", with or without brackets; "" or "all" for the whole tensor.

    Raises InvalidInputError.
    """
    bare = text.strip().strip("[]()").strip()
    if bare.lower() in ("", "all", "all elements"):
        return ()
    parts = [part.strip() for part in bare.split(",")]
    if len(parts) != len(shape):
        raise InvalidInputError(
            f"The tensor has {len(shape)} dimensions, {len(parts)} places are given: write one for each, "
            "or : for all of it"
        )
    return tuple(_place(part, size, at) for at, (part, size) in enumerate(zip(parts, shape, strict=True)))


def _place(text: str, size: int, dimension: int) -> int | None:
    if text == ":":
        return None
    try:
        place = int(text)
    except ValueError:
        raise InvalidInputError(f"{text!r} is no place: write a whole number, or : for all of it") from None
    if not -size <= place < size:
        raise InvalidInputError(
            f"Dimension {dimension} has {size} places, 0 to {size - 1}: {place} is none of them"
        )
    return place % size


def parse_value(text: str) -> float:
    """A number as typed, also nan and inf. Raises InvalidInputError."""
    try:
        return float(text.replace("−", "-").strip())
    except ValueError:
        raise InvalidInputError(f"{text!r} is no number") from None


def grid_rows(values: Array) -> list[list[str]]:
    """Rows and columns as texts."""
    return [[number(_float(value)) for value in line] for line in values]


def _float(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def finite_or_none(values: Array) -> list[list[float | None]]:
    """Numbers as JSON has them: None for NaN and infinities."""
    return [
        [float(value) if math.isfinite(value) else None for value in line]
        for line in values.astype(np.float64)
    ]
