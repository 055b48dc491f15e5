"""Times of two versions, compared by how many requests exceed edges of histogram buckets. Pure.

Before each tick four edges are chosen from stable's own past: the first bucket bounds that at most 50 %,
10 %, 5 % and 1 % of its requests exceeded. Evidence that the candidate exceeds them more often is averaged
over the edges, which gives an e-process again: no correction for four looks is needed. A tolerance moves the
candidate's edge up by whole buckets, so that "9 % slower is fine" is exact where buckets grow by 2^(1/8).
So does a difference of FLOOR_S, which no client notices: it is a fifth of a request that takes 5 ms, and
processes of one version differ by as much.

Safe at an edge means: the candidate's share beyond the stretched edge (by the largest regression, in whole
buckets; twice as many for the 1 % edge, where single requests decide) is proven below stable's share beyond
the edge itself, or below the nominal 50, 10, 5, 1 % where buckets are so coarse that stable's is smaller.
Every edge must be safe; as all of them must, no correction is needed either.

Works on one comparison or on many at once, like `eprocess`; arrays have any leading shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from control_plane.analysis import eprocess
from control_plane.analysis.base import Json
from control_plane.analysis.eprocess import Array, Counts

QUANTILES: Final = (0.5, 0.9, 0.95, 0.99)
BEYOND: Final[Array] = np.array([0.5, 0.1, 0.05, 0.01])
LEARN: Final = 100
"""Requests of stable that are only learned from, before anything is tested."""
FLOOR_S: Final = 0.001
"""A candidate that is slower by no more than this is not worse, in seconds."""
_PRIOR: Final[Array] = np.full(len(eprocess.WORSE_BY), 1.0 / len(eprocess.WORSE_BY))
"""Weights of the alternatives "worse": one slowdown shows as small a rise at one edge as large at another."""
_NEAR: Final = 1.0 + 1e-9


class Shifts(NamedTuple):
    """Buckets by which the candidate's edges are moved up: for worse (one), and for safe (one an edge).

    floor: as many more for each bound as FLOOR_S holds whole buckets above it.
    """

    tolerance: int
    safe: tuple[int, ...]
    floor: npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Exceedance:
    """What has been seen. stable, candidate: requests by bucket, (..., buckets); wealths: logarithms.

    One comparison, or an array of them.
    """

    stable: Array
    candidate: Array
    worse: Array
    """Shape (..., 4 edges, 7 alternatives)."""
    safe: Array
    """Shape (..., 4 edges, 4 alternatives)."""

    @property
    def log_worse(self) -> Array:
        """Log-evidence that the candidate is slower somewhere."""
        by_edge = eprocess.log_evidence(self.worse, _PRIOR)
        return eprocess.log_evidence(by_edge, np.full(len(QUANTILES), 1.0 / len(QUANTILES)))

    @property
    def log_safe(self) -> Array:
        """Log-evidence that the candidate is safe at the edge that is furthest from it."""
        return np.asarray(eprocess.log_evidence(self.safe, eprocess.SAFE_PRIOR).min(axis=-1))


class Edges(NamedTuple):
    """Rates at the chosen edges by what was seen so far. Arrays (..., 4)."""

    at: npt.NDArray[np.intp]
    """Which bucket bound each is."""
    stable: Array
    """Stable's share beyond the edge."""
    stretched: Array
    """Stable's share beyond the edge that "safe" asks the candidate's requests to stay within."""
    candidate: Array
    """The candidate's share beyond that one."""


def start(buckets: int, shape: tuple[int, ...] = ()) -> Exceedance:
    """Nothing seen yet; *buckets* is one more than bounds."""
    none = np.zeros((*shape, buckets))
    edges = len(QUANTILES)
    return Exceedance(
        none,
        none,
        np.zeros((*shape, edges, len(eprocess.WORSE_BY))),
        np.zeros((*shape, edges, len(eprocess.SAFE_PRIOR))),
    )


def shifts(bounds_s: npt.ArrayLike, *, tolerance: float, max_regression: float) -> Shifts:
    """Whole buckets that make up the two factors 1 + tolerance and 1 + max_regression.

    The tolerance is rounded up and the largest regression down, so that neither verdict claims too much.
    """
    bounds = np.asarray(bounds_s, dtype=np.float64)
    bucket = float(np.log(bounds[-1] / bounds[0])) / (len(bounds) - 1)
    up = int(np.ceil(np.log1p(tolerance) / bucket / _NEAR))
    down = int(np.floor(np.log1p(max_regression) / bucket * _NEAR))
    floor = np.searchsorted(bounds, bounds + FLOOR_S * _NEAR, side="right") - 1 - np.arange(len(bounds))
    return Shifts(up, (down, down, down, 2 * down), floor)


def edges(seen: Exceedance, moved: Shifts) -> Edges:
    """The edges that stable's past chooses, and the rates at them."""
    over = beyond(seen.stable)
    total = seen.stable.sum(axis=-1)[..., None]
    within = over[..., None, :] <= BEYOND[:, None] * total[..., None]
    last = over.shape[-1] - 1
    first = np.where(within.any(axis=-1), within.argmax(axis=-1), last)
    index = np.minimum(first, last - np.maximum(np.asarray(moved.safe), moved.tolerance))
    index = np.maximum(index, 0)
    reach = np.minimum(index + np.asarray(moved.safe) + moved.floor[index], last)
    past = seen.candidate.sum(axis=-1)[..., None]
    return Edges(
        index,
        _share(_at(over, index), total),
        _share(_at(over, reach), total),
        _share(_at(beyond(seen.candidate), reach), past),
    )


def advance(seen: Exceedance, stable: Array, candidate: Array, moved: Shifts) -> Exceedance:
    """*seen* after a tick's requests by bucket. Edges and alternatives come from what was seen before it."""
    learned = seen.stable.sum(axis=-1) >= LEARN
    chosen = edges(seen, moved)
    over_s, over_c = beyond(stable), beyond(candidate)
    last = over_s.shape[-1] - 1
    shape = chosen.at.shape
    n_c = np.broadcast_to(np.where(learned, candidate.sum(axis=-1), 0.0)[..., None], shape)
    n_s = np.broadcast_to(stable.sum(axis=-1)[..., None], shape)
    e_s = _at(over_s, chosen.at)
    floor = moved.floor[chosen.at]
    slower = _at(over_c, np.minimum(chosen.at + moved.tolerance + floor, last))
    far = _at(over_c, np.minimum(chosen.at + np.asarray(moved.safe) + floor, last))
    around = chosen.stable[..., None]
    # Without enough history n_c is 0, which makes every factor 1; counts are then no counts, and unused.
    worse = eprocess.log_factors(
        Counts(n_c, np.minimum(slower, n_c), n_s, e_s),
        eprocess.worse_alternatives(chosen.stable, 0.0),
        around,
        0.0,
    )
    least = np.maximum(BEYOND - chosen.stable, 0.0)
    safe = eprocess.log_factors(
        Counts(n_c, np.minimum(far, n_c), n_s, e_s),
        eprocess.safe_alternatives(chosen.stable, chosen.stretched, least),
        around,
        least[..., None],
    )
    return Exceedance(seen.stable + stable, seen.candidate + candidate, seen.worse + worse, seen.safe + safe)


def learn(seen: Exceedance, stable: Array) -> Exceedance:
    """*seen* after a tick whose requests were not split at random."""
    return Exceedance(seen.stable + stable, seen.candidate, seen.worse, seen.safe)


def beyond(by_bucket: Array) -> Array:
    """Requests above each bound, from requests by bucket: shape (..., bounds)."""
    return np.asarray(by_bucket[..., ::-1].cumsum(axis=-1)[..., ::-1][..., 1:])


def dumped(seen: Exceedance) -> Json:
    """*seen* as plain JSON."""
    return {
        "stable": seen.stable.tolist(),
        "candidate": seen.candidate.tolist(),
        "worse": seen.worse.tolist(),
        "safe": seen.safe.tolist(),
    }


def of(state: Json) -> Exceedance:
    """What `dumped` wrote."""
    return Exceedance(
        *(np.asarray(state[name], dtype=np.float64) for name in ("stable", "candidate", "worse", "safe"))
    )


def quantile_s(by_bucket: Array, bounds_s: Array, q: float) -> float | None:
    """The *q*-quantile in seconds, interpolated geometrically within its bucket; None without requests."""
    total = float(by_bucket.sum())
    if total <= 0.0:
        return None
    below = by_bucket.cumsum()
    index = int(np.searchsorted(below, q * total))
    if index == 0 or index >= len(bounds_s):
        return float(bounds_s[min(index, len(bounds_s) - 1)])
    part = (q * total - float(below[index - 1])) / float(by_bucket[index])
    low, high = float(bounds_s[index - 1]), float(bounds_s[index])
    return float(low * (high / low) ** part)


def _at(values: Array, index: npt.NDArray[np.intp]) -> Array:
    return np.asarray(np.take_along_axis(values, index, axis=-1))


def _share(counted: Array, total: Array) -> Array:
    return np.asarray((counted + 0.5) / (total + 1.0))
