"""A candidate whose agents take more and more memory while requests come, and stable's do not. Pure.

No statistics: resident memory is a gauge, and a leak is a line that keeps rising. Caches and allocators grow
too, but come to rest; that is what the share of rising parts tells apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

Points = Sequence[tuple[float, float]]
"""One agent's resident memory: (UTC seconds, bytes), ascending in time."""

LEAST_S: Final = 20.0
"""A shorter line says nothing."""
PARTS: Final = 10
RISING_PARTS: Final = 0.8
"""Share of the line's parts that must be higher than the part before."""
TIMES_STABLE: Final = 4.0
"""Growth must be so many times what stable's agents grew by in the same time."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Growth that counts once a line is so long: at least so many bytes, and such a share of the first."""

    least_s: float
    least_bytes: float
    least_share: float


PACES: Final = (
    Pace(LEAST_S, 256 * 1024**2, 0.6),
    Pace(180.0, 64 * 1024**2, 0.2),
)
"""What grows fast is found soon; what grows slowly must have done so for longer than anything warms up."""
_MIB: Final = 1024**2


def leak(candidate: Iterable[Points], stable: Iterable[Points], *, allowance: float = 0.0) -> str | None:
    """Why the candidate is taken to leak, in one sentence; None where it is not.

    candidate, stable: one line an agent, over the same time, since requests reach the candidate; allowance:
    bytes that its agents may take for a response cache.
    """
    stable_growth = max((_growth(line) for line in stable if _long_enough(line)), default=0.0)
    for line in candidate:
        if _long_enough(line) and _leaks(line, stable_growth, allowance):
            first, last = _ends(line)
            took_s = line[-1][0] - line[0][0]
            return (
                f"memory: an agent of the candidate grew from {first / _MIB:.0f} to {last / _MIB:.0f} MiB in "
                f"{took_s:.0f} s and does not stop; stable's grew by {stable_growth / _MIB:.0f} MiB"
            )
    return None


def _long_enough(line: Points) -> bool:
    return len(line) >= 2 * PARTS and line[-1][0] - line[0][0] >= LEAST_S


def _leaks(line: Points, stable_growth: float, allowance: float) -> bool:
    first, _ = _ends(line)
    grown, lasted_s = _growth(line) - allowance, line[-1][0] - line[0][0]
    fast = any(
        lasted_s >= pace.least_s and grown >= max(pace.least_bytes, pace.least_share * first)
        for pace in PACES
    )
    return fast and grown >= TIMES_STABLE * stable_growth and _rising_share(line) >= RISING_PARTS


def _growth(line: Points) -> float:
    first, last = _ends(line)
    return last - first


def _ends(line: Points) -> tuple[float, float]:
    parts = _parts(line)
    return parts[0], parts[-1]


def _rising_share(line: Points) -> float:
    parts = _parts(line)
    rises = [later > earlier for earlier, later in itertools.pairwise(parts)]
    return sum(rises) / len(rises)


def _parts(line: Points) -> list[float]:
    """The line's mean in each of PARTS equal parts of its points."""
    size = len(line) / PARTS
    return [
        fmean(value for _, value in line[round(part * size) : round((part + 1) * size)])
        for part in range(PARTS)
    ]
