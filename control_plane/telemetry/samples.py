"""What is stored: increments of counters and histograms, and values of gauges. Pure.

Processes export totals that only grow until they restart. Between two readings of the same process the
difference is what happened; after a restart the new total is. A first reading says nothing yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

Labels = tuple[tuple[str, str], ...]
"""Label names and values, in order of name."""


class SampleKind(StrEnum):
    """How samples of a name are merged."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Key:
    """One measured thing: `bounds` are a histogram's finite upper bucket bounds, ascending."""

    name: str
    labels: Labels = ()
    kind: SampleKind = SampleKind.GAUGE
    bounds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement that covers the `span_s` seconds before it was taken.

    value: a gauge's value, a counter's increment, or a histogram's number of new observations; counts: a
    histogram's new observations by bucket, one more than there are bounds.
    """

    key: Key
    value: float
    span_s: float
    counts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Total:
    """A counter's or histogram's value since its process started; counts as in `Sample`, not cumulative."""

    key: Key
    value: float
    counts: tuple[int, ...] = ()


def labels_of(values: Mapping[str, str]) -> Labels:
    """Return *values* as labels."""
    return tuple(sorted(values.items()))


class Increments:
    """Turns one process's totals, reading by reading, into increments."""

    def __init__(self) -> None:
        self._last: dict[Key, Total] | None = None
        self._last_s = 0.0
        self._covered_s = 0.0

    @property
    def covered_s(self) -> float:
        """Seconds that the last reading spoke for; 0 when it said nothing yet."""
        return self._covered_s

    def take(self, totals: Iterable[Total], now_s: float) -> list[Sample]:
        """Return what happened since the last reading: nothing at the first one.

        A total that is new since the last reading, or lower than then (its process restarted), counts whole.
        """
        seen = {total.key: total for total in totals}
        last, span_s = self._last, now_s - self._last_s
        self._last, self._last_s = seen, now_s
        self._covered_s = max(0.0, span_s) if last is not None else 0.0
        if last is None or span_s <= 0:
            return []
        return [_increment(total, last.get(key), span_s) for key, total in seen.items()]


def _increment(total: Total, last: Total | None, span_s: float) -> Sample:
    if last is None or _restarted(total, last):
        return Sample(total.key, total.value, span_s, total.counts)
    counts = tuple(new - old for new, old in zip(total.counts, last.counts, strict=True))
    return Sample(total.key, total.value - last.value, span_s, counts)


def _restarted(total: Total, last: Total) -> bool:
    fewer = any(new < old for new, old in zip(total.counts, last.counts, strict=True))
    return fewer or total.value < last.value
