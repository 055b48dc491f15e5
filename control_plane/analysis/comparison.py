"""Shares of two versions, followed tick by tick: evidence for worse, evidence for safe, totals. Pure.

Works on one comparison or on many at once; `of` and `dumped` go between it and plain JSON, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from control_plane.analysis import eprocess, interval
from control_plane.analysis.base import Json
from control_plane.analysis.eprocess import Array, Counts

SAFE_ALPHA: Final = 0.05
"""Chance of calling a regression safe that is as large as the largest allowed."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison, or an array of them. past: totals of the ticks so far; wealths are logarithms."""

    past: Counts
    worse: Array
    """Shape (..., 7)."""
    safe: Array
    """Shape (..., 4)."""
    strata: Array
    """Sums for the displayed interval (`interval.stratum`), shape (..., 4)."""

    @property
    def log_worse(self) -> Array:
        """Log-evidence that the candidate is worse."""
        return eprocess.log_evidence(self.worse, eprocess.WORSE_PRIOR)

    @property
    def log_safe(self) -> Array:
        """Log-evidence that the candidate is safe."""
        return eprocess.log_evidence(self.safe, eprocess.SAFE_PRIOR)


def start(shape: tuple[int, ...] = ()) -> Comparison:
    """Nothing seen yet; *shape* of comparisons at once."""
    none = np.zeros(shape)
    return Comparison(
        Counts(none, none, none, none),
        np.zeros((*shape, len(eprocess.WORSE_BY))),
        np.zeros((*shape, len(eprocess.SAFE_PRIOR))),
        np.zeros((*shape, 4)),
    )


def advance(seen: Comparison, tick: Counts, *, tolerance: float, max_regression: float) -> Comparison:
    """*seen* after one more tick. The alternatives come from what was seen before it."""
    stable = eprocess.shrunken(seen.past.e_s, seen.past.n_s)
    around = stable[..., None]
    worse = eprocess.worse_alternatives(stable, tolerance)
    safe = eprocess.safe_alternatives(stable, stable, max_regression)
    return Comparison(
        Counts(*(before + now for before, now in zip(seen.past, tick, strict=True))),
        seen.worse + eprocess.log_factors(tick, worse, around, tolerance),
        seen.safe + eprocess.log_factors(tick, safe, around, max_regression),
        seen.strata + interval.stratum(tick),
    )


def learn(seen: Comparison, tick: Counts) -> Comparison:
    """*seen* after a tick whose requests were not split at random: stable's counts only, and no evidence."""
    past = seen.past
    return Comparison(
        Counts(past.n_c, past.e_c, past.n_s + tick.n_s, past.e_s + tick.e_s),
        seen.worse,
        seen.safe,
        seen.strata,
    )


def dumped(seen: Comparison) -> Json:
    """*seen* as plain JSON; one comparison, or an array of them."""
    return {
        "past": [value.tolist() for value in seen.past],
        "worse": seen.worse.tolist(),
        "safe": seen.safe.tolist(),
        "strata": seen.strata.tolist(),
    }


def of(state: Json) -> Comparison:
    """The comparison that `dumped` wrote."""
    return Comparison(
        Counts(*(np.asarray(value, dtype=np.float64) for value in state["past"])),
        np.asarray(state["worse"], dtype=np.float64),
        np.asarray(state["safe"], dtype=np.float64),
        np.asarray(state["strata"], dtype=np.float64),
    )
