"""The knee of a batch-size sweep: where larger batches stop paying. Pure.

The rule: start at the smallest size that ran and go up while the step pays; the knee is where that ends. A
step from one size to the next larger one pays where every doubling of the rows brings at least GAIN times the
throughput; a step that is not a doubling must bring the same per doubling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from serving_agent.contract.profile import SweepPoint

GAIN: Final = 1.25
"""Throughput that a doubling of the batch must bring to be worth the longer answers."""
LEAST_POINTS: Final = 2


def knee(points: Sequence[SweepPoint]) -> int | None:
    """Return the knee in rows; None where fewer than two sizes ran."""
    ran = sorted(
        ((point.rows, point.rows_per_s) for point in points if point.rows > 0 and point.rows_per_s),
        key=lambda each: each[0],
    )
    if len(ran) < LEAST_POINTS:
        return None
    found = ran[0][0]
    for (fewer, slower), (more, faster) in pairwise(ran):
        if pays(fewer, slower or 0.0, more, faster or 0.0):
            found = more
        elif more > fewer:
            break
    return found


def pays(fewer: int, slower: float, more: int, faster: float) -> bool:
    """Tell whether the step from *fewer* rows (at *slower* rows a second) to *more* (at *faster*) pays."""
    if more <= fewer or slower <= 0:
        return False
    return faster >= slower * math.pow(GAIN, math.log2(more / fewer))
