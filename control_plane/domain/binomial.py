"""Exact bounds on a share that was counted. Pure.

The Clopper–Pearson bounds (C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits
illustrated in the case of the binomial", Biometrika 26, 1934): with k of n counted, the one-sided upper bound
at error probability α is the p with P(X ≤ k | n, p) = α, the lower bound the p with P(X ≥ k | n, p) = α.
Whatever the true share is, each is on the wrong side of it with probability α at most.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

_STEPS: Final = 60
"""Halvings of [0, 1]: more change nothing in a double."""
_NEGLIGIBLE: Final = 1e-18
"""Terms below this share of the sum so far end it: they fall faster than geometrically by then."""


def upper(count: int, total: int, alpha: float) -> float:
    """One-sided upper bound, in [0, 1], on the share of which *count* of *total* > 0 were seen."""
    if count >= total:
        return 1.0
    return _first(lambda share: at_most(count, total, share) <= alpha)


def lower(count: int, total: int, alpha: float) -> float:
    """One-sided lower bound, in [0, 1], on the share of which *count* of *total* > 0 were seen."""
    return 1.0 - upper(total - count, total, alpha)


def at_most(count: int, total: int, share: float) -> float:
    """P(X ≤ count) for X binomial of *total* draws with probability *share*."""
    if count < 0:
        return 0.0
    if count >= total or share <= 0:
        return 1.0
    if share >= 1:
        return 0.0
    if count < total * share:
        return _tail_below(count, total, share, 1.0 - share)
    return 1.0 - _tail_below(total - count - 1, total, 1.0 - share, share)


def _tail_below(count: int, total: int, share: float, rest: float) -> float:
    """Sum the terms from *count* downwards, which fall below the mean. rest: 1 - share, to the last bit."""
    log_term = (
        math.lgamma(total + 1)
        - math.lgamma(count + 1)
        - math.lgamma(total - count + 1)
        + count * math.log(share)
        + (total - count) * math.log(rest)
    )
    term = summed = math.exp(log_term)
    odds = rest / share
    for each in range(count, 0, -1):
        term *= odds * each / (total - each + 1)
        summed += term
        if term <= summed * _NEGLIGIBLE:
            break
    return min(1.0, summed)


def _first(holds: Callable[[float], bool]) -> float:
    """The smallest share in [0, 1] from which *holds* is true; never below it."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
