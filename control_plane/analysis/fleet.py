"""Many simulated rollouts at once, judged by the code that judges real ones. Pure, given a generator.

Errors and latency are followed, the two guardrails that requests alone decide. What `comparison` and
`exceedance` do to one rollout's counts they do here to an array of them; a test holds both to one result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from control_plane.analysis import comparison, exceedance
from control_plane.analysis.comparison import SAFE_ALPHA, Comparison
from control_plane.analysis.eprocess import Array, Counts
from control_plane.analysis.exceedance import Exceedance, Shifts
from control_plane.analysis.verdict import ALPHA
from control_plane.domain.rollout import Guardrail

Mask: TypeAlias = npt.NDArray[np.bool_]

_BUCKETS_AN_OCTAVE: Final = 8
_Z_95: Final = 1.6448536269514722
_Z_9999: Final = 3.719
NEVER: Final = math.inf


@dataclass(frozen=True, slots=True)
class Times:
    """Lognormal times, and the buckets they are counted in."""

    p50_s: float
    sigma: float
    bounds_s: Array

    def shares(self, slowdown: Array) -> Array:
        """Share of requests by bucket, shape (..., buckets), where all times are *slowdown* times as long."""
        deviations = np.log(self.bounds_s / self.p50_s) - np.log(slowdown)[..., None]
        spread = max(self.sigma, 1e-6) * math.sqrt(2.0)
        below = 0.5 * (1.0 + _erf(deviations / spread))
        edge = np.zeros((*below.shape[:-1], 1))
        return np.diff(np.concatenate([edge, below, edge + 1.0], axis=-1), axis=-1)


def times(p50_s: float, p95_s: float) -> Times:
    """Times with these quantiles, in seconds; 0 < p50_s <= p95_s."""
    sigma = math.log(p95_s / p50_s) / _Z_95
    octaves = sigma * _Z_9999 / math.log(2.0)
    last = math.ceil(octaves * _BUCKETS_AN_OCTAVE) + 2 * _BUCKETS_AN_OCTAVE
    return Times(p50_s, sigma, p50_s * 2.0 ** (np.arange(-4, last) / _BUCKETS_AN_OCTAVE))


@dataclass(frozen=True, slots=True)
class Traffic:
    """A tick of every run. by_bucket arrays: (runs, buckets)."""

    counts: Counts
    stable: Array
    candidate: Array


def draw(
    rng: np.random.Generator,
    *,
    stable: tuple[Array, Array, Array],
    candidate: tuple[Array, Array, Array],
) -> Traffic:
    """Random traffic of one tick; of each version: expected requests (runs,), error rate (runs,), shares."""
    by_bucket = []
    errors = []
    for expected, rate, shares in (stable, candidate):
        drawn = rng.poisson(expected[:, None] * shares)
        by_bucket.append(drawn.astype(np.float64))
        errors.append(rng.binomial(drawn.sum(axis=-1), rate).astype(np.float64))
    return Traffic(
        Counts(by_bucket[1].sum(axis=-1), errors[1], by_bucket[0].sum(axis=-1), errors[0]), *by_bucket
    )


@dataclass(frozen=True, slots=True)
class Rules:
    """How runs are judged; None for a guardrail that is not there, or only observes."""

    errors: Guardrail | None
    latency: Guardrail | None
    moved: Shifts


def rules(guardrails: Sequence[Guardrail], buckets: Times) -> Rules:
    """The rules that *guardrails* make for what is simulated."""
    judging = {guardrail.name: guardrail for guardrail in guardrails if not guardrail.observe_only}
    latency = judging.get("latency")
    return Rules(
        judging.get("errors"),
        latency,
        exceedance.shifts(
            buckets.bounds_s,
            tolerance=latency.tolerance if latency else 0.0,
            max_regression=latency.max_regression if latency else 0.0,
        ),
    )


@dataclass(frozen=True, slots=True)
class Fleet:
    """Evidence of every run."""

    errors: Comparison
    latency: Exceedance

    def worse(self, by: Rules) -> Mask:
        """Which runs are to be rolled back, shape (runs,)."""
        return self.worse_errors(by) | self.worse_latency(by)

    def worse_errors(self, by: Rules) -> Mask:
        """Which runs have proof of more errors."""
        return _crossed(self.errors.log_worse, ALPHA * by.errors.alpha_share if by.errors else 0.0)

    def worse_latency(self, by: Rules) -> Mask:
        """Which runs have proof of longer times."""
        return _crossed(self.latency.log_worse, ALPHA * by.latency.alpha_share if by.latency else 0.0)

    def safe(self, by: Rules) -> Mask:
        """Which runs are safe in everything, shape (runs,)."""
        errors = np.ones(self.errors.past.n_c.shape, dtype=np.bool_)
        if by.errors:
            errors = _crossed(self.errors.log_safe, SAFE_ALPHA)
        return errors & _crossed(self.latency.log_safe, SAFE_ALPHA) if by.latency else errors

    def of(self, kept: Mask) -> Fleet:
        """Only the runs in *kept*."""
        seen, slow = self.errors, self.latency
        return Fleet(
            Comparison(
                Counts(*(value[kept] for value in seen.past)),
                seen.worse[kept],
                seen.safe[kept],
                seen.strata[kept],
            ),
            Exceedance(slow.stable[kept], slow.candidate[kept], slow.worse[kept], slow.safe[kept]),
        )


def start(runs: int, buckets: Times) -> Fleet:
    """Nothing seen in any run."""
    return Fleet(comparison.start((runs,)), exceedance.start(len(buckets.bounds_s) + 1, (runs,)))


def advance(fleet: Fleet, tick: Traffic, by: Rules) -> Fleet:
    """Every run after one more tick."""
    errors, latency = fleet.errors, fleet.latency
    if by.errors:
        errors = comparison.advance(
            errors, tick.counts, tolerance=by.errors.tolerance, max_regression=by.errors.max_regression
        )
    if by.latency:
        latency = exceedance.advance(latency, tick.stable, tick.candidate, by.moved)
    return Fleet(errors, latency)


def _crossed(logs: Array, alpha: float) -> Mask:
    if alpha <= 0.0:
        return np.zeros(logs.shape, dtype=np.bool_)
    return np.asarray(logs >= -math.log(alpha))


def _erf(values: Array) -> Array:
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(values))
