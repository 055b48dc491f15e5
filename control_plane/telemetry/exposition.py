"""Reads totals and gauges out of Prometheus' text format. Pure.

Only the names asked for are read; labels that are not asked for are summed away. The gateway of a thousand
endpoints answers with a hundred thousand lines every two seconds: so what stands before the value of a line
is taken apart once, and the line is known by it from then on.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from control_plane.telemetry.samples import Key, Labels, SampleKind, Total, labels_of


@dataclass(frozen=True, slots=True)
class Source:
    """One exported name and what it is stored as.

    exported: without the `_total` or `_bucket` ending; a histogram's `_sum` or `_count` may be read as a
    counter of its own; labels: those kept; scale: multiplies gauge values and bucket bounds (1e-6 turns
    microseconds into seconds); added: labels every sample of it gets; renamed: names under which kept labels
    are stored, by exported name, where they differ.
    """

    exported: str
    stored: str
    kind: SampleKind
    labels: tuple[str, ...]
    scale: float = 1.0
    added: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def lines(self) -> tuple[str, ...]:
        """Names of the lines that its values stand in."""
        if self.kind is SampleKind.HISTOGRAM:
            return (f"{self.exported}_bucket",)
        total = (f"{self.exported}_total",) if self.kind is SampleKind.COUNTER else ()
        return (self.exported, *total)

    def labels_from(self, found: Mapping[str, str]) -> Labels:
        """Return the labels that a line with the labels *found* is stored under."""
        kept = {self.renamed.get(name, name): found.get(name, "") for name in self.labels}
        return labels_of({**kept, **self.added})


@dataclass(frozen=True, slots=True)
class Reading:
    """What one text held."""

    totals: list[Total]
    gauges: dict[Key, float]


def read(text: str, sources: Iterable[Source]) -> Reading:
    """Return the values of *sources* in *text*. Raises ValueError when it is not in the text format."""
    return Reader(sources).read(text)


@dataclass(slots=True)
class _Measured:
    """One measured thing and the cells that its values are summed in: of a histogram one for each bound."""

    stored: str
    kind: SampleKind
    labels: Labels
    cells: dict[float, int] = field(default_factory=dict)


_NO_BOUND: Final = math.inf
_SPARE: Final = 2
"""What is known of lines is forgotten when there are so many times more than in the last text."""


class Reader:
    """Reads the same sources again and again; not thread-safe. Lines must not carry timestamps."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources: defaultdict[str, list[Source]] = defaultdict(list)
        for source in sources:
            for name in source.lines:
                self._sources[name].append(source)
        self._forget()

    def _forget(self) -> None:
        self._cells_of: dict[str, tuple[int, ...]] = {}
        self._measured: dict[tuple[str, Labels], _Measured] = {}
        self._scales: list[float] = []

    def read(self, text: str) -> Reading:
        """Return the values of the sources in *text*. Raises ValueError when it is not in the text format."""
        lines = [line for line in text.split("\n") if line and line[0] != "#"]
        if len(self._cells_of) > _SPARE * len(lines):
            self._forget()
        sums = self._sums(lines)
        gauges: dict[Key, float] = {}
        totals: list[Total] = []
        for measured in self._measured.values():
            if measured.kind is SampleKind.GAUGE:
                gauges.update(_gauge(measured, sums))
            else:
                totals += _TOTALS[measured.kind](measured, sums)
        return Reading(totals, gauges)

    def _sums(self, lines: list[str]) -> dict[int, float]:
        """Return the sum of the values of each cell that has any."""
        sums: dict[int, float] = {}
        known = self._cells_of
        for line in lines:
            head, _, value = line.rpartition(" ")
            cells = known.get(head)
            if cells is None:
                cells = known[head] = self._cells(head)
            for cell in cells:
                sums[cell] = sums.get(cell, 0.0) + float(value) * self._scales[cell]
        return sums

    def _cells(self, head: str) -> tuple[int, ...]:
        parsed = _HEAD.fullmatch(head)
        if parsed is None:
            raise ValueError(f"not a line of Prometheus' text format: {head[:80]!r}")
        name, body = parsed.groups()
        sources = self._sources.get(name, ())
        found = _parse_labels(body or "") if sources else {}
        return tuple(self._cell(source, found) for source in sources)

    def _cell(self, source: Source, found: Mapping[str, str]) -> int:
        labels = source.labels_from(found)
        measured = self._measured.get((source.stored, labels))
        if measured is None:
            measured = _Measured(source.stored, source.kind, labels)
            self._measured[source.stored, labels] = measured
        histogram = source.kind is SampleKind.HISTOGRAM
        bound = round(float(found["le"]) * source.scale, 9) if histogram else _NO_BOUND
        if bound not in measured.cells:
            measured.cells[bound] = len(self._scales)
            self._scales.append(source.scale if source.kind is SampleKind.GAUGE else 1.0)
        return measured.cells[bound]


_HEAD: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?")
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)')
_ESCAPES: Final = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}
_ESCAPED: Final = re.compile(r"\\.")


def _unescaped(escape: re.Match[str]) -> str:
    return _ESCAPES.get(escape[0], escape[0])


def _parse_labels(body: str) -> dict[str, str]:
    found: dict[str, str] = {}
    end = 0
    while end < len(body):
        label = _LABEL.match(body, end)
        if label is None:
            raise ValueError(f"not labels of Prometheus' text format: {body[:80]!r}")
        name, value = label.groups()
        found[name] = _ESCAPED.sub(_unescaped, value) if "\\" in value else value
        end = label.end()
    return found


def _gauge(measured: _Measured, sums: Mapping[int, float]) -> Iterator[tuple[Key, float]]:
    value = sums.get(measured.cells[_NO_BOUND])
    if value is not None and math.isfinite(value):
        yield Key(measured.stored, measured.labels), value


def _counter(measured: _Measured, sums: Mapping[int, float]) -> Iterator[Total]:
    value = sums.get(measured.cells[_NO_BOUND])
    if value is not None:
        yield Total(Key(measured.stored, measured.labels, SampleKind.COUNTER), value)


def _histogram(measured: _Measured, sums: Mapping[int, float]) -> Iterator[Total]:
    buckets = sorted((bound, int(sums[cell])) for bound, cell in measured.cells.items() if cell in sums)
    if not buckets:
        return
    counts = [count for _, count in buckets]
    single = tuple(new - old for new, old in zip(counts, [0, *counts], strict=False))
    bounds = tuple(bound for bound, _ in buckets if bound < math.inf)
    yield Total(
        Key(measured.stored, measured.labels, SampleKind.HISTOGRAM, bounds), float(counts[-1]), single
    )


_TOTALS: Final = {SampleKind.COUNTER: _counter, SampleKind.HISTOGRAM: _histogram}
