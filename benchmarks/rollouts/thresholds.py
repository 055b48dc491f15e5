"""Fixed thresholds as Flagger and Argo Rollouts are usually set up, over many simulated rollouts at once.

Both look once a minute at the candidate alone. Flagger rolls back at the fifth failed check, counted over
the whole rollout; a check without requests fails. Argo aborts when more than `failureLimit` 3 have failed;
a check without requests does not count. Success must be at least 99 %; a limit on the 95 % quantile is 1.1
times what stable is known to have, which a real user would have to know beforehand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from control_plane.analysis.eprocess import Array
from control_plane.analysis.fleet import Mask, Times, Traffic

EVERY_S = 60.0
LEAST_SUCCESS = 0.99
P95_FACTOR = 1.1
FLAGGER_THRESHOLD = 5
ARGO_LIMIT = 3


@dataclass
class Thresholds:
    """Counts of the minute so far, and of failed checks."""

    buckets: Times
    p95_s: float
    runs: int

    def __post_init__(self) -> None:
        self.flagger, self.argo, self.flagger_p95 = (np.zeros(self.runs) for _ in range(3))
        self._clear()

    def _clear(self) -> None:
        self.requests, self.errors = np.zeros(self.runs), np.zeros(self.runs)
        self.by_bucket = np.zeros((self.runs, len(self.buckets.bounds_s) + 1))

    def add(self, tick: Traffic, end_s: float) -> dict[str, Mask]:
        """Which runs each has rolled back after this tick."""
        self.requests += tick.counts.n_c
        self.errors += tick.counts.e_c
        self.by_bucket += tick.candidate
        if end_s % EVERY_S == 0.0:
            self._check()
        return {
            "flagger": self.flagger >= FLAGGER_THRESHOLD,
            "argo": self.argo > ARGO_LIMIT,
            "flagger p95": self.flagger_p95 >= FLAGGER_THRESHOLD,
        }

    def _check(self) -> None:
        none = self.requests == 0.0
        bad = self.errors > (1.0 - LEAST_SUCCESS) * self.requests
        self.flagger += bad | none
        self.argo += bad & ~none
        self.flagger_p95 += none | (self._p95() > P95_FACTOR * self.p95_s)
        self._clear()

    def _p95(self) -> Array:
        """The minute's 95 % quantile by bucket, interpolated geometrically."""
        total = np.maximum(self.by_bucket.sum(axis=1), 1.0)
        below = self.by_bucket.cumsum(axis=1)
        wanted = 0.95 * total
        last = len(self.buckets.bounds_s) - 1
        index = np.clip((below < wanted[:, None]).sum(axis=1), 1, last)
        rows = np.arange(self.runs)
        inside = np.maximum(self.by_bucket[rows, index], 1e-9)
        part = np.clip((wanted - below[rows, index - 1]) / inside, 0.0, 1.0)
        low, high = self.buckets.bounds_s[index - 1], self.buckets.bounds_s[index]
        return np.asarray(low * (high / low) ** part)
