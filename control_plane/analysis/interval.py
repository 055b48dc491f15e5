"""Intervals for what is displayed, valid however often one looks at them. Pure. No verdict rests on them.

Method: the difference is weighted over ticks by n_c n_s / (n_c + n_s), as Mantel and Haenszel do, so that a
base rate that moves for both versions, or a weight that changes, does not show as a difference. Its sum of
deviations is treated as a martingale of Gaussian steps and bounded by Robbins' normal mixture: with S the
variance so far, |sum| stays below sqrt((S + r) (ln((S + r) / r) - 2 ln a)) at all times with probability 1
- a, for an r that is chosen beforehand. Assumption: enough requests for sums of them to be Gaussian
(asymptotic; Waudby-Smith et al., "Time-uniform central limit theory and asymptotic confidence sequences",
arXiv 2103.06476). With a few errors it is rough.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from control_plane.analysis.eprocess import Array, Counts

LEVEL: Final = 0.95
"""Chance that the interval covers the true difference at all times."""
_TUNED_FOR: Final = 500.0
"""Requests of the candidate at which the bound is nearly as narrow as it can be."""


def stratum(tick: Counts) -> Array:
    """What a tick adds to the sums of an interval, shape (..., 4): difference, weight, and two variances."""
    n_c, e_c, n_s, e_s = tick
    total = np.maximum(n_c + n_s, 1.0)
    return np.stack(
        [
            (e_c * n_s - e_s * n_c) / total,
            n_c * n_s / total,
            n_c * (n_s / total) ** 2,
            n_s * (n_c / total) ** 2,
        ],
        axis=-1,
    )


def difference(past: Counts, strata: Array) -> tuple[float | None, float | None, float | None]:
    """Difference of two shares with the ends of its interval; None while either version did nothing."""
    deviation, weight, of_candidate, of_stable = (float(value) for value in strata)
    if weight <= 0.0:
        return None, None, None
    variance = of_candidate * _variance(past.e_c, past.n_c) + of_stable * _variance(past.e_s, past.n_s)
    tuned = _TUNED_FOR * _variance(past.e_s, past.n_s)
    half = bound(variance, tuned) / weight
    middle = deviation / weight
    return middle, max(middle - half, -1.0), min(middle + half, 1.0)


def bound(variance: float, tuned_for: float, alpha: float = 1.0 - LEVEL) -> float:
    """How far a Gaussian martingale with this *variance* so far may be from 0; narrowest near *tuned_for*."""
    wanted = -2.0 * math.log(alpha)
    base = tuned_for / (wanted + math.log(1.0 + wanted))
    return math.sqrt((variance + base) * (math.log((variance + base) / base) + wanted))


def _variance(counted: Array, requests: Array) -> float:
    share = (float(counted) + 1.0) / (float(requests) + 2.0)  # never 0, so that no interval is a point
    return share * (1.0 - share)


def quantile(over: Array, requests: float, bounds_s: Array, q: float) -> tuple[float, float | None]:
    """Ends of the interval of the *q*-quantile, in seconds; the upper one is None where nothing bounds it.

    over: requests above each bound; bounds_s: ascending, seconds; requests: all of them, > 0.
    """
    share = 1.0 - q
    spread = share * q
    slack = bound(requests * spread, _TUNED_FOR * spread, (1.0 - LEVEL) / 2.0)
    above = np.flatnonzero(over > requests * share + slack)
    below = np.flatnonzero(over < requests * share - slack)
    low = float(bounds_s[above[-1]]) if above.size else 0.0
    return low, float(bounds_s[below[0]]) if below.size else None
