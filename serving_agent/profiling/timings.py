"""Many times as a few figures. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from serving_agent.contract.profile import Times


def times(name: str, seconds: Sequence[float]) -> Times:
    """Return mean, median and 99th percentile of *seconds*, none of which may be missing."""
    ordered = sorted(seconds)
    return Times(
        name=name,
        mean_s=statistics.fmean(ordered),
        p50_s=statistics.median(ordered),
        p99_s=percentile(ordered, 0.99),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest of the ascending *ordered* that *share* of them do not exceed."""
    needed = -(-len(ordered) * share // 1)
    return ordered[max(0, min(len(ordered), int(needed)) - 1)]
