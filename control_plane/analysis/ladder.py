"""How simulated rollouts climb their steps: each when it has baked, had its requests and is safe."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from control_plane.analysis.fleet import Mask
from control_plane.domain.rollout import Step


class Ladder:
    """Where each run is on the steps, and what it has done there. Arrays are (runs,)."""

    def __init__(self, steps: Sequence[Step], runs: int, copies: float) -> None:
        self.index = np.zeros(runs, dtype=np.intp)
        self.baked_s = np.zeros(runs)
        self.requests = np.zeros(runs)
        self.late_s = np.zeros(runs)
        """By how much those that leave now could have left earlier, were the tick shorter."""
        self._proven = np.zeros(runs, dtype=np.bool_)
        self.last = len(steps) - 1
        self._bake_s = np.array([step.bake_s for step in steps])
        self._least = np.array([max(step.min_requests, copies if step.mirror else 0.0) for step in steps])
        self._least[[not step.measures for step in steps]] = 0.0
        self._judged = np.array([0.0 < step.weight < 1.0 for step in steps])
        self._free = ~self._judged & (self._least == 0.0)

    def leaves(self, safe: Mask) -> Mask:
        """Which runs have baked, had their requests, and are safe where that is judged."""
        proven = (self.requests >= self._least[self.index]) & (safe | ~self._judged[self.index])
        before = self._proven | self._free[self.index]
        late_s = np.where(before, self.baked_s - self._bake_s[self.index], 0.0)
        leaving = proven & (self.baked_s >= self._bake_s[self.index])
        self.late_s = np.where(leaving, late_s, 0.0)
        self._proven = proven & ~leaving
        return np.asarray(leaving)

    def of(self, kept: Mask) -> None:
        """Keep only these runs."""
        self.index, self.baked_s, self.requests = self.index[kept], self.baked_s[kept], self.requests[kept]
        self.late_s, self._proven = self.late_s[kept], self._proven[kept]

    def move(self, leaving: Mask) -> None:
        """Let these runs go on to their next step."""
        self.index = self.index + leaving
        self.baked_s = np.where(leaving, self.late_s, self.baked_s)
        self.requests = np.where(leaving, 0.0, self.requests)
