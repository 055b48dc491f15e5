"""Figures of one tensor: extremes, moments, zeros, NaN, infinities, histogram. Pure, on numpy alone.

Elements are read in pieces that fit into a processor's cache, twice: extremes and sum first, then what
depends on them. All arithmetic is in double precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from serving_agent.contract.inspection import BINS, Histogram

PIECE: Final = 1 << 15
"""Elements read at a time."""
SAFE: Final = 1e140
"""Beyond it, or below its inverse, squares and widths are computed of scaled elements."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one tensor; those from *low* on are of its finite elements, None where it has none."""

    elements: int
    zeros: int = 0
    nan: int = 0
    inf: int = 0
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None
    histogram: Histogram | None = None


def figures(array: npt.NDArray[Any]) -> Figures:
    """Return the figures of *array*: bools, integers or floats of numpy, in any shape."""
    flat = array.reshape(-1)
    if flat.dtype == np.bool_:
        flat = flat.view(np.uint8)
    pieces = [flat[start : start + PIECE] for start in range(0, flat.size, PIECE)]
    with np.errstate(all="ignore"):
        seen = _Extremes()
        for piece in pieces:
            seen.read(piece)
        if seen.low is None or seen.high is None:
            return Figures(elements=flat.size, zeros=seen.zeros, nan=seen.nan, inf=seen.inf)
        mean, std, counts = _shape_of(pieces, seen, seen.low, seen.high)
    return Figures(
        elements=flat.size,
        zeros=seen.zeros,
        nan=seen.nan,
        inf=seen.inf,
        low=seen.low,
        high=seen.high,
        mean=mean,
        std=std,
        histogram=Histogram(low=seen.low, high=seen.high, counts=tuple(counts.tolist())),
    )


class _Extremes:
    """What the first reading finds."""

    def __init__(self) -> None:
        self.zeros = self.nan = self.inf = self.finite = 0
        self.low: float | None = None
        self.high: float | None = None
        self.total = 0.0
        """Of the finite elements; infinite where doubles do not hold it."""

    def read(self, piece: npt.NDArray[Any]) -> None:
        low, high = float(piece.min()), float(piece.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            self.nan += int(np.isnan(piece).sum())
            self.inf += int(np.isinf(piece).sum())
            piece = piece[np.isfinite(piece)]
            if not piece.size:
                return
            low, high = float(piece.min()), float(piece.max())
        self.finite += piece.size
        if low <= 0.0 <= high:
            self.zeros += piece.size - int(np.count_nonzero(piece != 0))
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)
        self.total += float(piece.sum(dtype=np.float64))


def _shape_of(
    pieces: list[npt.NDArray[Any]], seen: _Extremes, low: float, high: float
) -> tuple[float, float, npt.NDArray[np.intp]]:
    """Return mean, standard deviation and the histogram's counts."""
    largest = max(abs(low), abs(high))
    scale = 1.0 if largest == 0.0 or 1.0 / SAFE <= largest <= SAFE else largest
    mean = seen.total / seen.finite if scale == 1.0 else _scaled_mean(pieces, scale, seen.finite)
    first, width = low / scale, high / scale - low / scale
    factor = BINS / width if width > 0.0 else 0.0
    counts = np.zeros(BINS + 1, dtype=np.intp)
    squares = 0.0
    for piece in pieces:
        values = _finite(piece, seen, scale)
        places = values - first
        places *= factor
        counts += np.bincount(places.astype(np.intp), minlength=BINS + 1)
        values -= mean
        values *= values  # not np.dot: its threads would wait for each other longer than it takes
        squares += float(values.sum())
    counts[BINS - 1] += counts[BINS]  # the last bin holds its upper end
    std = math.sqrt(squares / seen.finite)
    return min(max(mean * scale, low), high), std * scale, counts[:BINS]


def _scaled_mean(pieces: list[npt.NDArray[Any]], scale: float, finite: int) -> float:
    total = 0.0
    for piece in pieces:
        values = piece.astype(np.float64)
        total += float((values[np.isfinite(values)] / scale).sum())
    return total / finite


def _finite(piece: npt.NDArray[Any], seen: _Extremes, scale: float) -> Doubles:
    """Return the finite elements as doubles in memory of their own."""
    values: Doubles = piece.astype(np.float64)
    if seen.nan or seen.inf:
        values = values[np.isfinite(values)]
    if scale != 1.0:
        values = values / scale
    return values
