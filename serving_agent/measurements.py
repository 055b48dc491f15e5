"""What an agent counts and times, cheaply enough for every request: plain integers and lists.

Written on the I/O loop's thread only; `metrics` and `statistics` put it into words.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from serving_agent.answers import Summary, count_bins
from serving_agent.contract.metric_names import DURATION_BUCKETS_S
from serving_agent.contract.options import MAX_ROWS
from serving_agent.errors import AgentError, ModelError

ROWS_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Upper bounds of the histogram of batch sizes, in rows."""


class Histogram:
    """Counts of observations by bucket, one bucket more than there are bounds, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = DURATION_BUCKETS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self.counts)


class StageTimes(msgspec.Struct, frozen=True):
    """How long one execution of the model took, in seconds, by stage."""

    preprocess_s: float = 0.0
    predict_s: float = 0.0
    postprocess_s: float = 0.0

    @property
    def total_s(self) -> float:
        """All stages together."""
        return self.preprocess_s + self.predict_s + self.postprocess_s


@dataclass(slots=True)
class BatchTotals:
    """All executions with one number of rows."""

    executions: int = 0
    preprocess_s: float = 0.0
    predict_s: float = 0.0
    postprocess_s: float = 0.0


@dataclass(slots=True)
class Measurements:
    """Everything one agent has counted since it started."""

    request: Histogram = field(default_factory=Histogram)
    """Seconds from a request's arrival to its answer; answered requests only, by the cache too."""
    queue: Histogram = field(default_factory=Histogram)
    """Seconds a request waited for the inference thread."""
    preprocess: Histogram = field(default_factory=Histogram)
    predict: Histogram = field(default_factory=Histogram)
    postprocess: Histogram = field(default_factory=Histogram)
    inference: Histogram = field(default_factory=Histogram)
    """Seconds the inference thread worked on a request's batch: the three stages together."""
    rows: Histogram = field(default_factory=lambda: Histogram(ROWS_BUCKETS))
    """Rows of each executed batch, padding not counted."""
    batches: dict[int, BatchTotals] = field(default_factory=dict)
    """By rows of the batch; those above MAX_ROWS, which one request alone may bring, count as that many."""
    inferred_rows: int = 0
    last_inference_ms: int = 0
    """Wall-clock time of the last execution, in milliseconds since the epoch; 0 before the first."""
    failed: int = 0
    """Requests that passed validation and got no answer."""
    failed_s: float = 0.0
    cache_hits: int = 0
    cache_hit_s: float = 0.0
    cache_misses: int = 0
    answered: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By transport and HTTP-style status."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Requests not run, by error code."""
    answers: int = 0
    """Answers to requests that are part of a rollout."""
    nonfinite_answers: int = 0
    output_bins: Counter[str] = field(default_factory=Counter)
    """Rows of those answers by bin."""

    def executed(self, rows: int, stages: StageTimes) -> None:
        """Record one run of the model over *rows* rows."""
        self.rows.observe(rows)
        self.inferred_rows += rows
        self.last_inference_ms = time.time_ns() // 1_000_000
        totals = self.batches.setdefault(min(rows, MAX_ROWS), BatchTotals())
        totals.executions += 1
        totals.preprocess_s += stages.preprocess_s
        totals.predict_s += stages.predict_s
        totals.postprocess_s += stages.postprocess_s

    def answer(self, transport: str, status: int, error: AgentError | None = None) -> None:
        """Record one answered request, and where *error* kept it from being run, its reason."""
        self.answered[(transport, status)] += 1
        if error is not None and not isinstance(error, ModelError):
            self.rejected[error.code] += 1

    def cache_hit(self, seconds: float) -> None:
        """Record one request answered from the cache, *seconds* after it had arrived."""
        self.cache_hits += 1
        self.cache_hit_s += seconds
        self.request.observe(seconds)

    def answered_in_rollout(self, summary: Summary) -> None:
        """Record one answer to a request that is part of a rollout."""
        self.answers += 1
        self.nonfinite_answers += summary.nonfinite
        count_bins(self.output_bins, summary.bins)

    def failed_after(self, seconds: float) -> None:
        """Record one request that passed validation and got no answer."""
        self.failed += 1
        self.failed_s += seconds

    def inferred(self, queue_s: float, stages: StageTimes) -> None:
        """Record one request that an execution has answered."""
        self.queue.observe(queue_s)
        self.preprocess.observe(stages.preprocess_s)
        self.predict.observe(stages.predict_s)
        self.postprocess.observe(stages.postprocess_s)
        self.inference.observe(stages.total_s)
