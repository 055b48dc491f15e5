"""Turns stored samples into lines. Pure.

Time is cut into steps; a step's value comes from the samples taken in it. A sample speaks for the span before
it, so a step without samples whose time the next sample covers has that sample's value: samples that come a
little late leave no hole. Time that nothing covers is a gap.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from control_plane.telemetry.series import Line, Series, SeriesKind

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

SIGNIFICANT_DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Stored:
    """All samples of one measured thing in a window, in order of time; shapes (n,) and (n, buckets)."""

    labels: Mapping[str, str]
    bounds: tuple[float, ...]
    t_s: Floats
    span_s: Floats
    value: Floats
    counts: Ints | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """Steps of `step_s` seconds from `start_s` on; a sample belongs to the step that ends at or after it."""

    start_s: float
    step_s: float
    steps: int

    def index(self, t_s: Floats) -> npt.NDArray[np.intp]:
        """Return the step of each time, clipped to the window."""
        steps = np.ceil((t_s - self.start_s) / self.step_s).astype(np.intp) - 1
        return np.clip(steps, 0, self.steps - 1)

    @property
    def end_s(self) -> float:
        """When the last step ends."""
        return self.start_s + self.step_s * self.steps

    def ends_s(self) -> list[float]:
        """Return when each step ends."""
        return [self.start_s + self.step_s * (step + 1) for step in range(self.steps)]


def window(start_s: float, end_s: float, step_s: float) -> Window:
    """Return whole steps, on multiples of *step_s*, that end in (start_s, end_s]; at least one."""
    first = math.floor(start_s / step_s)
    last = max(first + 1, math.floor(end_s / step_s))
    return Window(first * step_s, step_s, last - first)


def evaluate(series: Series, stored: Sequence[Stored], over: Window) -> list[Line]:
    """Return the lines of *series*, ordered by label values."""
    groups: dict[tuple[str, ...], list[Stored]] = defaultdict(list)
    for one in stored:
        groups[tuple(one.labels.get(name, "") for name in series.group_by)].append(one)
    ends_s = over.ends_s()
    lines = sorted(groups.items())
    return [
        Line(dict(zip(series.group_by, values, strict=True)), ends_s, _points(series, group, over))
        for values, group in lines
    ]


def _points(series: Series, group: Sequence[Stored], over: Window) -> list[float | None]:
    covered = _coverage(group, over)
    values = _CALCULATIONS[series.kind](series, group, over)
    filled = _bridge(values, covered, over)
    return [None if math.isnan(value) else value for value in _rounded(filled).tolist()]


def _rounded(values: Floats) -> Floats:
    """Keep SIGNIFICANT_DIGITS: charts show no more, and numbers stay short on the wire."""
    magnitude = np.floor(np.log10(np.abs(values), out=np.zeros(len(values)), where=np.abs(values) > 0))
    scale = 10.0 ** (SIGNIFICANT_DIGITS - 1 - magnitude)
    return np.round(values * scale) / scale


def _coverage(group: Sequence[Stored], over: Window) -> Floats:
    """Return since when the samples of each step speak; infinity for a step without samples."""
    since = np.full(over.steps, np.inf)
    for one in group:
        np.minimum.at(since, over.index(one.t_s), one.t_s - one.span_s)
    return since


def _bridge(values: Floats, since: Floats, over: Window) -> Floats:
    """Give empty steps the value of the next step's samples where these cover at least half of the step."""
    for step in np.flatnonzero(np.isinf(since[:-1]))[::-1]:
        middle = over.start_s + (step + 0.5) * over.step_s
        if since[step + 1] <= middle:
            values[step], since[step] = values[step + 1], since[step + 1]
    return values


def _sums(group: Sequence[Stored], over: Window) -> Floats:
    total = np.zeros(over.steps)
    for one in group:
        total += np.bincount(over.index(one.t_s), one.value, over.steps)
    return total


def _rate(_: Series, group: Sequence[Stored], over: Window) -> Floats:
    span = np.zeros(over.steps)
    for one in group:
        span = np.maximum(span, np.bincount(over.index(one.t_s), one.span_s, over.steps))
    return _divide(_sums(group, over), span)


def _ratio(series: Series, group: Sequence[Stored], over: Window) -> Floats:
    chosen = [one for one in group if one.labels.get("code", "").startswith(series.codes)]
    return _divide(_sums(chosen, over), _sums(group, over))


def _mean(series: Series, group: Sequence[Stored], over: Window) -> Floats:
    chosen = [one.labels.get("code", "").startswith(series.codes) for one in group]
    upper = [one for one, mine in zip(group, chosen, strict=True) if mine]
    lower = [one for one, mine in zip(group, chosen, strict=True) if not mine]
    return _divide(_sums(upper, over), _sums(lower, over))


def _gauge(_: Series, group: Sequence[Stored], over: Window) -> Floats:
    total, seen = np.zeros(over.steps), np.zeros(over.steps, bool)
    for one in group:
        steps = over.index(one.t_s)
        mean = _divide(np.bincount(steps, one.value, over.steps), np.bincount(steps, None, over.steps))
        seen |= ~np.isnan(mean)
        total += np.nan_to_num(mean)
    return np.where(seen, total, np.nan)


def _divide(upper: Any, lower: Any) -> Floats:
    """Divide, with NaN where there is nothing to divide by."""
    result = np.full(len(upper), np.nan)
    np.divide(upper, lower, out=result, where=np.asarray(lower) > 0)
    return result


def _quantile(series: Series, group: Sequence[Stored], over: Window) -> Floats:
    by_bounds: dict[tuple[float, ...], list[Stored]] = defaultdict(list)
    for one in group:
        by_bounds[one.bounds].append(one)
    # other bounds mean another release measured: the newest one speaks
    bounds, newest = max(by_bounds.items(), key=lambda item: max(one.t_s[-1] for one in item[1]))
    return quantiles(merged_counts(newest, over), bounds, series.quantile)


def merged_counts(group: Sequence[Stored], over: Window) -> Ints:
    """Return new observations by step and bucket, of histograms that share their bounds."""
    merged = np.zeros((over.steps, len(group[0].bounds) + 1), np.int64)
    for one in group:
        if one.counts is not None and len(one.t_s):
            steps = over.index(one.t_s)
            starts = np.flatnonzero(np.diff(steps, prepend=-1))
            merged[steps[starts]] += np.add.reduceat(one.counts, starts, axis=0)
    return merged


def quantiles(counts: Ints, bounds: Sequence[float], q: float) -> Floats:
    """Return the *q*-quantile of each row of bucket counts; NaN for a row without observations.

    counts: shape (steps, len(bounds) + 1), not cumulative; bounds: finite upper bounds, ascending. Linear
    within a bucket, the lowest starting at 0; above the last bound it is that (Prometheus'
    histogram_quantile).
    """
    uppers = np.asarray(bounds, np.float64)
    lowers = np.concatenate([[0.0], uppers[:-1]])
    cumulative = np.cumsum(counts, axis=1)
    rank = q * cumulative[:, -1]
    bucket = np.minimum((cumulative < rank[:, None]).sum(axis=1), len(uppers))
    inside = np.minimum(bucket, len(uppers) - 1)
    rows = np.arange(len(counts))
    within = counts[rows, inside]
    below = cumulative[rows, inside] - within
    share = np.clip(_divide(rank - below, within), 0.0, 1.0)
    value = lowers[inside] + (uppers[inside] - lowers[inside]) * np.nan_to_num(share)
    value = np.where(bucket == len(uppers), uppers[-1], value)
    return np.where(cumulative[:, -1] > 0, value, np.nan)


_CALCULATIONS = {
    SeriesKind.RATE: _rate,
    SeriesKind.RATIO: _ratio,
    SeriesKind.MEAN: _mean,
    SeriesKind.GAUGE: _gauge,
    SeriesKind.QUANTILE: _quantile,
}
