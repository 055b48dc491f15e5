"""Ticks of evidence without randomness: counts as asked for, times at even quantiles of a lognormal."""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from statistics import NormalDist

from control_plane.analysis import evidence as evidences
from control_plane.analysis.base import ArmCounts, Evidence, Pairs, Tick
from control_plane.domain.rollout import Guardrail

SPAN_S = 5.0
BOUNDS = tuple(0.005 * 2.0 ** (number / 8) for number in range(64))
CLASSES = ("cat", "dog", "bird", "fish")


@functools.cache
def histogram(requests: int, slowdown: float = 1.0) -> tuple[int, ...]:
    """*requests* by bucket; p50 is 40 ms times *slowdown*, p95 91 ms."""
    counts = [0] * (len(BOUNDS) + 1)
    for number in range(requests):
        deviation = NormalDist().inv_cdf((number + 0.5) / requests)
        counts[bisect.bisect_left(BOUNDS, 0.04 * slowdown * math.exp(0.5 * deviation))] += 1
    return tuple(counts)


def arm(requests: int, errors: int = 0, *, slowdown: float = 1.0, nonfinite: int = 0) -> ArmCounts:
    """One version that reports everything; answers are even over the classes."""
    times = histogram(requests, slowdown)
    share, rest = divmod(requests, len(CLASSES))
    outputs = {name: share + (number < rest) for number, name in enumerate(CLASSES)}
    return ArmCounts(
        requests=requests,
        errors=errors,
        tries=requests,
        failed_tries=errors,
        latency=times,
        first_byte=times,
        answers=requests,
        nonfinite=nonfinite,
        outputs=outputs,
    )


def tick(
    number: int,
    stable: ArmCounts,
    candidate: ArmCounts,
    *,
    weight: float | None = 0.2,
    pairs: Pairs | None = None,
) -> Tick:
    """The *number*-th tick."""
    return Tick(
        end_ms=int((number + 1) * SPAN_S * 1000),
        span_s=SPAN_S,
        weight=weight,
        stable=stable,
        candidate=candidate,
        latency_bounds_s=BOUNDS,
        pairs=pairs,
    )


def steady(
    count: int,
    *,
    first: int = 0,
    requests: int = 100,
    weight: float = 0.2,
    stable_every: int = 2,
    candidate_errors: int = 0,
    slowdown: float = 1.0,
    nonfinite: int = 0,
) -> Iterator[Tick]:
    """*count* like ticks; stable has one error in every *stable_every*-th."""
    sent = round(requests * weight)
    candidate = arm(sent, candidate_errors, slowdown=slowdown, nonfinite=nonfinite)
    for number in range(first, first + count):
        yield tick(number, arm(requests - sent, int(number % stable_every == 0)), candidate, weight=weight)


def gathered(
    guardrails: Sequence[Guardrail], ticks: Iterable[Tick], begin: Evidence | None = None
) -> Evidence:
    """The evidence of *ticks*, upon *begin*."""
    seen = begin or evidences.start(guardrails)
    for one in ticks:
        seen = evidences.advance(seen, one, guardrails)
    return seen
