"""How long making and measuring a variant may take. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Final

from control_plane.domain.optimization import Conditions

SMALL_BYTES: Final = 20 * 1024**2
"""Size of the models that a method's `cost_s` is said of."""
START_S: Final = 3.0
"""To start a process and open an artefact in it."""
ANSWER_S: Final = 1.0
"""To answer the rows that are compared."""
WARM_UP_S: Final = 0.6
"""To run both sides in at one batch size."""
SLACK: Final = 1.3
"""A round ends with the call that runs past its time."""


def scaled(cost_s: float, size_bytes: int) -> float:
    """Seconds to build a variant of a version of *size_bytes*: measured builds grow like its root."""
    return cost_s * math.sqrt(max(1.0, size_bytes / SMALL_BYTES))


def from_past(seconds_and_sizes: Sequence[tuple[float, int]], size_bytes: int) -> float:
    """Median of past builds, (seconds, bytes of the parent) each, brought to the size of this version."""
    return statistics.median(
        scaled(seconds, size_bytes) / scaled(1.0, past) for seconds, past in seconds_and_sizes
    )


def build_s(build: float) -> float:
    """Seconds from the start of the building process to its end, for *build* seconds of building."""
    return START_S + build


def measuring_s(conditions: Conditions) -> float:
    """Seconds to measure both sides under *conditions*."""
    batch = WARM_UP_S + 2 * conditions.rounds * conditions.round_s * SLACK
    return 2 * START_S + ANSWER_S + len(conditions.batches) * batch
