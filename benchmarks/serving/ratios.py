"""Ratios by round and what may be claimed from them. Pure.

Both sides of a ratio come from the same round, so that what slows the whole machine for a while cancels out.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Series = Mapping[int, float]
"""A figure by round; rounds that were void are missing."""
Verdict = Literal["met", "not met", "open", "too few rounds", "not measured"]

MIN_ROUNDS: Final = 7
"""Fewer say nothing: seven rounds on the same side by chance alone happen once in 64 times."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range over rounds."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Iterable[float]) -> Spread | None:
    """Return median and range of *values*, None where there are none."""
    sample = list(values)
    if not sample:
        return None
    return Spread(statistics.median(sample), min(sample), max(sample), len(sample))


def by_round(ours: Series, theirs: Series, combine: Callable[[float, float], float]) -> Series:
    """Return `combine(ours, theirs)` for each round that has both."""
    return {number: combine(ours[number], theirs[number]) for number in ours.keys() & theirs.keys()}


def ratio(ours: Series, theirs: Series) -> Spread | None:
    """Return the spread of ours/theirs over the rounds that have both, None where none has."""
    return spread(by_round(ours, theirs, lambda a, b: a / b).values())


def difference(ours: Series, theirs: Series) -> Spread | None:
    """Return the spread of ours - theirs over the rounds that have both, None where none has."""
    return spread(by_round(ours, theirs, lambda a, b: a - b).values())


def best(candidates: Sequence[Series], choose: Callable[[Iterable[float]], float]) -> Series:
    """Return, for each round, the best candidate's figure: *choose* is max or min."""
    rounds = {number for candidate in candidates for number in candidate}
    return {
        number: choose(candidate[number] for candidate in candidates if number in candidate)
        for number in rounds
    }


def in_all(candidates: Sequence[Series]) -> frozenset[int]:
    """Return the rounds in which every candidate has a figure: a best of some is no best of all."""
    return frozenset.intersection(*map(frozenset, candidates)) if candidates else frozenset()


def is_claim(ratios: Spread) -> bool:
    """Tell whether every one of at least MIN_ROUNDS was on the same side of 1: only then one is faster."""
    return ratios.rounds >= MIN_ROUNDS and (ratios.low > 1.0 or ratios.high < 1.0)


def verdict(found: Spread | None, bound: float, *, at_least: bool) -> Verdict:
    """Judge a goal over all rounds: `met` or `not met` only where every round says the same.

    at_least: whether *found* is to be at or above *bound*, or at or below it.
    """
    if found is None:
        return "not measured"
    if found.rounds < MIN_ROUNDS:
        return "too few rounds"
    if at_least:
        return "met" if found.low >= bound else "not met" if found.high < bound else "open"
    return "met" if found.high <= bound else "not met" if found.low > bound else "open"
