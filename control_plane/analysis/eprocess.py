"""The test of two versions side by side: a 2x2 e-process against a convex null. Pure.

In each tick the candidate answers n_c requests of which e_c count (as errors, as slow, ...), stable n_s and
e_s. Two nulls are tested, each over all ticks so far and after every one of them:

    not worse   p_c <= p_s + tolerance         rejected: the candidate is worse
    not safe    p_c >= p_s + max_regression    rejected: so large a regression is excluded

Before a tick, pairs (t_c, t_s) outside of the null are named from what past ticks showed: the alternatives.
For each let (x, y) be the point of the null's edge x = y + delta that minimises

    n_c KL(t_c || x) + n_s KL(t_s || y)

(for delta = 0 the pooled mean). The tick multiplies this alternative's wealth by

    (t_c/x)^e_c ((1-t_c)/(1-x))^(n_c-e_c) (t_s/y)^e_s ((1-t_s)/(1-y))^(n_s-e_s)

and the evidence W is the mean of the wealths, weighted by weights that never change.

Why W reaches 1/alpha with probability at most alpha while the null holds, however often one looks: under
any (p_c, p_s) of the null the factor's expectation is a^n_c b^n_s, where

    a = p_c t_c/x + (1-p_c)(1-t_c)/(1-x)    and b alike of p_s, t_s, y.

Its logarithm is at most n_c (a-1) + n_s (b-1), and that is minus the derivative of the minimised sum at (x,
y) towards (p_c, p_s). The null is convex and (x, y) is its nearest point, so the derivative is not negative
and the expectation at most 1. Alternatives and numbers of requests may depend on the past in any way, and
so may (p_c, p_s): weights may change, and both rates may move together. So every wealth, and their weighted
mean, is a non-negative supermartingale that starts at 1; Ville's inequality does the rest.

What it asks for: requests are split at random within a tick (see `sample_ratio`), and outcomes are
independent given the rates; errors that come in bursts of one client are counted by client.

Sources: Turner, Ly, Gruenwald, "Generic E-variables for exact sequential k-sample tests that allow for
optional stopping" (arXiv 2106.02693); Gruenwald, de Heide, Koolen, "Safe testing" (1906.07801); Ville, "Etude
critique de la notion de collectif" (1939); on comparing versions so: Lindon, Sanden, Shirikian, "Rapid
regression detection in software deployments through sequential testing" (2205.14762).

Every function works on one comparison or on many at once: arrays have any leading shape, alternatives last.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float64]

WORSE_BY: Final[Array] = np.array([0.0025, 0.005, 0.01, 0.02, 0.05, 0.15, 0.4])
"""Alternatives to "not worse": how far above the null's edge the candidate is, as shares."""
WORSE_PRIOR: Final[Array] = np.array([0.1, 0.15, 0.45, 0.15, 0.05, 0.05, 0.05])
"""Their weights; most on what is hard to find, for a large regression shows at once anyhow."""
SAFE_AT: Final[Array] = np.array([0.5, 0.75, 1.0])
"""Alternatives to "not safe": parts of the way from the null's edge down to a candidate equal to stable."""
SAFE_PRIOR: Final[Array] = np.array([0.15, 0.25, 0.4, 0.2])
"""Their weights, and last that of a candidate with half of stable's rate."""

_TINY: Final = 1e-12
_LEAST_RATE: Final = 1e-6
_PRIOR_COUNTED: Final = 0.5
_PRIOR_REQUESTS: Final = 50.0
_MAX_STEPS: Final = 80
_CLOSE: Final = 1e-13
"""Relative step at which the nearest point is found: the expectation is then at most 1 + 1e-12 or so."""


class Counts(NamedTuple):
    """Requests and, of those, the ones that count; of candidate and stable. Arrays of one shape."""

    n_c: Array
    e_c: Array
    n_s: Array
    e_s: Array

    def with_axis(self) -> Counts:
        """The same with a last axis of one, to go with alternatives."""
        return Counts(*(value[..., None] for value in self))


def counts(n_c: npt.ArrayLike, e_c: npt.ArrayLike, n_s: npt.ArrayLike, e_s: npt.ArrayLike) -> Counts:
    """Counts of anything that numpy takes for numbers."""
    return Counts(*(np.asarray(value, dtype=np.float64) for value in (n_c, e_c, n_s, e_s)))


def shrunken(counted: npt.ArrayLike, requests: npt.ArrayLike) -> Array:
    """Share *counted* of *requests*, drawn to 1 % while there are few; strictly between 0 and 1."""
    share = (np.asarray(counted, dtype=np.float64) + _PRIOR_COUNTED) / (
        np.asarray(requests, dtype=np.float64) + _PRIOR_REQUESTS
    )
    return np.asarray(np.clip(share, _LEAST_RATE, 1.0 - _LEAST_RATE))


def worse_alternatives(stable: Array, delta: float) -> Array:
    """Candidate's rates that are worse than *stable*'s by more than *delta*, shape (..., 7).

    An offset leads at most half-way from the null's edge to 1; where no rate is worse, it is the edge.
    """
    edge = (stable + delta)[..., None]
    return np.asarray(edge + np.clip(0.5 * (1.0 - edge), 0.0, WORSE_BY))


def safe_alternatives(stable: Array, equal: Array, delta: float | Array) -> Array:
    """Candidate's rates that are better than *stable* + *delta*, shape (..., 4).

    equal: the rate that a candidate like stable would show, at most *stable* + *delta*.
    """
    edge = np.minimum(stable + delta, 1.0 - _LEAST_RATE)[..., None]
    like = np.minimum(equal[..., None], edge)
    between = edge - SAFE_AT * (edge - like)
    return np.asarray(np.maximum(np.concatenate([between, 0.5 * like], axis=-1), _LEAST_RATE))


def log_factors(tick: Counts, candidate: Array, stable: Array, delta: float | Array) -> Array:
    """Logarithms of a tick's factors, one an alternative, shape (..., alternatives).

    candidate, stable: the alternatives, fixed before the tick, in (0, 1). delta: of their shape, or one for
    all. An alternative on the null's edge, and a tick in which one version got nothing, gives 0.
    """
    n_c, e_c, n_s, e_s = tick.with_axis()
    told = (n_c > 0) & (n_s > 0) & (np.abs(candidate - stable - delta) > _TINY)
    candidate, stable = np.where(told, candidate, 0.5), np.where(told, stable, 0.5)
    y = _projected(np.where(told, n_c, 1.0), np.where(told, n_s, 1.0), candidate, stable, delta)
    x = y + delta
    logs = (
        e_c * np.log(candidate / x)
        + (n_c - e_c) * np.log((1.0 - candidate) / (1.0 - x))
        + e_s * np.log(stable / y)
        + (n_s - e_s) * np.log((1.0 - stable) / (1.0 - y))
    )
    return np.where(told, logs, 0.0)


def log_evidence(log_wealths: Array, prior: Array) -> Array:
    """Logarithm of the mean of the wealths, over the last axis."""
    highest = log_wealths.max(axis=-1)
    return np.asarray(highest + np.log((prior * np.exp(log_wealths - highest[..., None])).sum(axis=-1)))


def growth(candidate: Array, stable: Array, ratio: Array, delta: float | Array) -> Array:
    """What one request of the candidate adds to the log-evidence when those are the true rates; not negative.

    ratio: requests of stable for each of the candidate. Against the null's edge at *delta*, for the one
    alternative that is true: an upper bound that the mean over alternatives comes close to.
    """
    one = np.ones_like(ratio)
    y = _projected(one, ratio, candidate, stable, delta)
    return np.asarray(_divergence(candidate, y + delta) + ratio * _divergence(stable, y))


def _divergence(p: Array, q: Array) -> Array:
    return np.asarray(p * np.log(p / q) + (1.0 - p) * np.log((1.0 - p) / (1.0 - q)))


def _projected(n_c: Array, n_s: Array, candidate: Array, stable: Array, delta: float | Array) -> Array:
    """Stable's rate y of the point (y + delta, y) that is nearest to the alternatives."""
    if isinstance(delta, float) and delta == 0.0:
        return np.asarray((n_c * candidate + n_s * stable) / (n_c + n_s))
    return _newton(n_c, n_s, candidate, stable, delta)


def _newton(n_c: Array, n_s: Array, candidate: Array, stable: Array, delta: float | Array) -> Array:
    """Newton's method on the derivative of the convex sum, kept within a bracket that shrinks."""
    highest = 1.0 - delta - _TINY
    low = np.clip(np.minimum(stable, candidate - delta), _TINY, highest)
    high = np.clip(np.maximum(stable, candidate - delta), _TINY, highest)
    y = (n_c * np.clip(candidate - delta, low, high) + n_s * np.clip(stable, low, high)) / (n_c + n_s)
    for _ in range(_MAX_STEPS):
        x = y + delta
        spread_c, spread_s = x * (1.0 - x), y * (1.0 - y)
        slope = n_c * (x - candidate) / spread_c + n_s * (y - stable) / spread_s
        bend = n_c * ((x - candidate) ** 2 + candidate * (1.0 - candidate)) / spread_c**2
        bend = bend + n_s * ((y - stable) ** 2 + stable * (1.0 - stable)) / spread_s**2
        step = slope / bend
        settled = np.abs(step) <= _CLOSE * y
        if settled.all():
            break
        low, high = np.where(slope < 0.0, y, low), np.where(slope > 0.0, y, high)
        inside = (y - step > low) & (y - step < high)
        y = np.where(settled, y, np.where(inside, y - step, 0.5 * (low + high)))
    return np.asarray(y)
