"""Optimised variants: what is measured of them, and when one counts as an improvement. Pure.

Every variant is compared with its parent in one run on one machine. Figures of two machines, or of two runs,
are never put side by side: only the ratios within a run are.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

METHOD: Final = "method"
"""Key of a version's lineage that names how it was made from its parent."""
REPORT: Final = "optimization"
"""Key of a version's lineage that holds `Recorded` as plain JSON."""
MAX_BATCH: Final = 1024
MAX_THREADS: Final = 256


class Objective(StrEnum):
    """What autotune makes best."""

    LATENCY = "latency"
    """Time of one row."""
    THROUGHPUT = "throughput"
    """Rows a second at the largest batch."""
    MEMORY = "memory"
    """Peak memory of the serving process."""
    SIZE = "size"
    """Bytes of the artefact."""


class TrialState(StrEnum):
    """A trial's life: one method with one set of parameters, tried on one version."""

    QUEUED = "queued"
    BUILDING = "building"
    SCREENED = "screened"
    """Built, and measured roughly; autotune may measure it again."""
    MEASURED = "measured"
    FAILED = "failed"
    """Could not be built or measured; `reason` says why."""
    DROPPED = "dropped"
    """Built, and then left behind by better ones."""


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a variant may lose, and what it must win at least."""

    min_agreement: float = 0.995
    """Least 95 % lower bound on the share of rows that both answer alike."""
    max_metric_drop: float = 0.005
    """Largest loss of the task metric (share of right answers), as a share: 0.005 is half a point."""
    min_speedup: float = 1.1
    """Least ratio of times, parent to variant, at any measured batch size."""
    min_shrink: float = 1.5
    """Least ratio of artefact sizes, parent to variant."""

    def __post_init__(self) -> None:
        if not (0 <= self.min_agreement <= 1 and 0 <= self.max_metric_drop <= 1):
            raise ValueError("min_agreement and max_metric_drop are shares from 0 to 1")
        if not (self.min_speedup >= 1 and self.min_shrink >= 1):
            raise ValueError("min_speedup and min_shrink are ratios of at least 1")


class Conditions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How variants are measured."""

    batches: tuple[int, ...] = (1, 32)
    """Batch sizes in rows, ascending."""
    threads: int = 1
    """CPU threads of one inference."""
    rounds: int = 9
    """Paired rounds for each batch size; each gives one ratio."""
    round_s: float = 0.15
    """How long one side of a round runs at least, in seconds."""

    def __post_init__(self) -> None:
        if not self.batches or list(self.batches) != sorted({n for n in self.batches if 1 <= n <= MAX_BATCH}):
            raise ValueError(f"batches must be ascending sizes from 1 to {MAX_BATCH}")
        if not 1 <= self.threads <= MAX_THREADS:
            raise ValueError(f"threads must be 1 to {MAX_THREADS}")
        if not (3 <= self.rounds <= 101 and 0 < self.round_s <= 10):
            raise ValueError("rounds must be 3 to 101, round_s more than 0 and at most 10")


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides at one batch size, interleaved in one run."""

    batch: int
    speedup: float
    """Median over the rounds of parent's time divided by variant's; above 1 the variant is faster."""
    speedup_low: float
    """Lower quartile of the rounds' ratios."""
    speedup_high: float
    """Upper quartile."""
    parent_ms: float
    """Median time of one batch."""
    variant_ms: float
    rounds: int
    quiet: float = 1.0
    """Share of calls that no other process interrupted, in the busiest round; only those count."""
    tokens_per_s: float | None = None
    """Tokens a second of the variant; None for what reads no tokens."""


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """What one side takes."""

    size_bytes: int
    """Of the artefact's files."""
    load_s: float
    """From the call that opens the artefact to the model being ready, libraries already imported."""
    memory_bytes: int
    """Peak resident memory of the measuring process above what it held before the artefact was opened."""


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """What both said to the same rows."""

    rows: int
    agreed: int
    """Rows on which both decide alike: the same likeliest class or token, else outputs within 2 %."""
    agreement_bound: float
    """One-sided 95 % Clopper–Pearson lower bound on the share of agreement."""
    max_error: float
    """Largest absolute difference of any output element."""
    mean_error: float
    min_cosine: float
    """Smallest cosine between the two answers to one row."""
    mean_cosine: float
    kl: float | None = None
    """Mean Kullback–Leibler divergence parent ‖ variant of the output distribution, in nats; None without
    classes or tokens."""
    labelled: int = 0
    """Rows whose right answer is known."""
    parent_right: int = 0
    variant_right: int = 0
    broken: int = 0
    """Rows the parent answers finitely and the variant does not."""

    @property
    def agreement(self) -> float:
        """Share of rows on which both decide alike."""
        return self.agreed / self.rows if self.rows else 0.0

    @property
    def metric_drop(self) -> float | None:
        """What the task metric loses, as a share; None without labelled rows."""
        return (self.parent_right - self.variant_right) / self.labelled if self.labelled else None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was measured of one variant."""

    conditions: Conditions
    timings: tuple[Timing, ...]
    parent: Footprint
    variant: Footprint
    answers: Answers
    build_s: float
    machine: dict[str, Any]
    """{"cpu", "cores", "flags", "memory_bytes", "gpus"} of where it was measured."""
    libraries: dict[str, str]
    """Versions of what made and ran it."""
    notes: tuple[str, ...] = ()
    """Sentences of the method about its artefact."""

    @property
    def shrink(self) -> float:
        """Parent's artefact size divided by the variant's."""
        return self.parent.size_bytes / max(1, self.variant.size_bytes)

    @property
    def best_speedup(self) -> float:
        """Largest median ratio over the batch sizes."""
        return max(timing.speedup for timing in self.timings)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a variant counts as an optimisation."""

    accepted: bool
    reasons: tuple[str, ...]
    """Sentences: why it was rejected, or what speaks for it."""


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """What a version's lineage says of how it was optimised."""

    parent: str
    """`model@N`."""
    method: str
    params: dict[str, Any]
    calibration: dict[str, Any] | None
    """{"source", "rows", "digest"}; None for methods without."""
    job: str
    """Id of the job that made it."""
    trial: int
    report: Report
    decision: Decision
    budget: Budget


def variant_of(lineage: Mapping[str, Any]) -> tuple[str | None, bool | None]:
    """The method that made a version and whether it was accepted; both None for what is no variant."""
    if REPORT not in lineage:
        return None, None
    return lineage.get(METHOD), lineage[REPORT]["decision"]["accepted"]
