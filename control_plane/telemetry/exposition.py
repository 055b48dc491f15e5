"""Reads totals and gauges out of Prometheus' text format. Pure.

Only the names asked for are read; labels that are not asked for are summed away.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from control_plane.telemetry.samples import Key, Labels, SampleKind, Total, labels_of


@dataclass(frozen=True, slots=True)
class Source:
    """One exported name and what it is stored as.

    exported: without the `_total` or `_bucket` ending; a histogram's `_sum` or `_count` may be read as a
    counter of its own; labels: those kept; scale: multiplies gauge values and
    bucket bounds (1e-6 turns microseconds into seconds); added: labels every sample of it gets.
    """

    exported: str
    stored: str
    kind: SampleKind
    labels: tuple[str, ...]
    scale: float = 1.0
    added: Mapping[str, str] = field(default_factory=dict)

    @property
    def family(self) -> str:
        """The name under which it is exported, together with what belongs to it."""
        whole = self.kind is not SampleKind.COUNTER
        return self.exported if whole else self.exported.removesuffix("_sum").removesuffix("_count")


@dataclass(frozen=True, slots=True)
class Reading:
    """What one text held."""

    totals: list[Total]
    gauges: dict[Key, float]


def read(text: str, sources: Iterable[Source]) -> Reading:
    """Return the values of *sources* in *text*. Raises ValueError when it is not in the text format."""
    wanted: defaultdict[str, list[Source]] = defaultdict(list)
    for source in sources:
        wanted[source.family].append(source)
    totals: list[Total] = []
    gauges: dict[Key, float] = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for source in wanted.get(family.name, ()):
            if source.kind is SampleKind.GAUGE:
                _add_gauges(gauges, family, source)
            else:
                totals += _READERS[source.kind](family, source)
    return Reading(totals, dict(gauges))


def _labels(found: Mapping[str, str], source: Source) -> Labels:
    return labels_of({**{name: found.get(name, "") for name in source.labels}, **source.added})


def _add_gauges(gauges: dict[Key, float], family: Metric, source: Source) -> None:
    for sample in family.samples:
        if math.isfinite(sample.value):
            gauges[Key(source.stored, _labels(sample.labels, source))] += sample.value * source.scale


def _counters(family: Metric, source: Source) -> Iterator[Total]:
    sums: dict[Labels, float] = defaultdict(float)
    for sample in family.samples:
        if sample.name in (source.exported, f"{source.exported}_total"):
            sums[_labels(sample.labels, source)] += sample.value
    for labels, value in sums.items():
        yield Total(Key(source.stored, labels, SampleKind.COUNTER), value)


def _histograms(family: Metric, source: Source) -> Iterator[Total]:
    cumulative: dict[Labels, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for sample in family.samples:
        if sample.name == f"{source.exported}_bucket":
            bound = float(sample.labels["le"]) * source.scale
            cumulative[_labels(sample.labels, source)][bound] += sample.value
    for labels, buckets in cumulative.items():
        yield _histogram(source.stored, labels, sorted(buckets.items()))


def _histogram(name: str, labels: Labels, buckets: list[tuple[float, float]]) -> Total:
    counts = [int(count) for _, count in buckets]
    single = tuple(new - old for new, old in zip(counts, [0, *counts], strict=False))
    bounds = tuple(round(bound, 9) for bound, _ in buckets if math.isfinite(bound))
    return Total(Key(name, labels, SampleKind.HISTOGRAM, bounds), float(counts[-1]), single)


_READERS: Final = {SampleKind.COUNTER: _counters, SampleKind.HISTOGRAM: _histograms}
