"""A share of one version against a fixed budget: an e-process on each side of it. Pure.

Null "within": p <= budget; rejected when there is proof of more. Null "not within": p >= budget. For an
alternative t the tick's factor is (t/b)^e ((1-t)/(1-b))^(n-e), of expectation at most 1 under its null;
wealths are averaged as in `eprocess`, where the sources are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from control_plane.analysis.base import Json
from control_plane.analysis.eprocess import Array

ABOVE: Final[Array] = np.array([0.25, 0.5, 1.0, 3.0, 10.0])
"""Alternatives above the budget: by how many times the budget they exceed it."""
WITHIN: Final[Array] = np.array([0.05, 0.25, 0.5, 0.75])
"""Alternatives within the budget: which part of it they use."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What has been seen: totals, and logarithms of wealths."""

    n: int
    e: int
    above: Array
    within: Array

    @property
    def log_above(self) -> float:
        """Log-evidence of more than the budget."""
        return _log_mean(self.above)

    @property
    def log_within(self) -> float:
        """Log-evidence of less than the budget."""
        return _log_mean(self.within)


def start() -> Budget:
    """Nothing seen yet."""
    return Budget(0, 0, np.zeros(len(ABOVE)), np.zeros(len(WITHIN)))


def advance(seen: Budget, n: int, e: int, *, above: float, within: float) -> Budget:
    """*seen* after *e* of *n* more.

    above, within: the budgets of both sides, in (0, 1); fixed, or functions of earlier ticks.
    """
    return replace(
        seen,
        n=seen.n + n,
        e=seen.e + e,
        above=seen.above + _logs(n, e, _worse_than(above), above),
        within=seen.within + _logs(n, e, within * WITHIN, within),
    )


def growth(rate: float, budget: float) -> float:
    """What one more request adds to the log-evidence on *rate*'s side of *budget*; not negative."""
    share = min(max(rate, 1e-6), 1.0 - 1e-6)
    return float(share * np.log(share / budget) + (1.0 - share) * np.log((1.0 - share) / (1.0 - budget)))


def dumped(seen: Budget) -> Json:
    """*seen* as plain JSON."""
    return {"n": seen.n, "e": seen.e, "above": seen.above.tolist(), "within": seen.within.tolist()}


def of(state: Json) -> Budget:
    """The budget that `dumped` wrote."""
    return Budget(
        state["n"],
        state["e"],
        np.asarray(state["above"], dtype=np.float64),
        np.asarray(state["within"], dtype=np.float64),
    )


def _worse_than(budget: float) -> Array:
    return np.asarray(budget + np.minimum(budget * ABOVE, 0.5 * (1.0 - budget)))


def _logs(n: int, e: int, alternatives: Array, budget: float) -> Array:
    return np.asarray(
        e * np.log(alternatives / budget) + (n - e) * np.log((1.0 - alternatives) / (1.0 - budget))
    )


def _log_mean(logs: Array) -> float:
    highest = logs.max()
    return float(highest + np.log(np.exp(logs - highest).mean()))
