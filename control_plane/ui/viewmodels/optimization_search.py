"""An autotune job: its trials as points of a Pareto chart, as rows, and where the search is in words. Pure.

Axes are ratios to the parent, each measured in one run with it: times of different runs are never put side by
side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from control_plane.domain.optimization import Objective, Report, Timing, TrialState
from control_plane.domain.optimization_views import SearchView, TrialView
from control_plane.ui.viewmodels import optimization as words
from control_plane.ui.viewmodels import quantities

Group = Literal["accepted", "rejected", "screened", "dropped", "failed"]
FLOOR: Final = 0.9
"""Agreement below which a point is drawn at the lower edge, so that the others are not squeezed together."""
_SMALLEST_PX, _LARGEST_PX = 11.0, 34.0
_GROUPS: Final[dict[str, Group]] = {TrialState.FAILED: "failed", TrialState.DROPPED: "dropped"}
_AXES: Final = {Objective.MEMORY: "Peak memory", Objective.SIZE: "Size"}


@dataclass(frozen=True, slots=True)
class Point:
    """One trial in the chart; the parent has number 0."""

    number: int
    x: float
    """The axis' figure as a multiple of the parent's: smaller is better."""
    low: float
    high: float
    """Quartiles of x."""
    y: float
    """Agreement in percent, at least FLOOR."""
    px: float
    """Diameter, by size."""
    group: Group | Literal["parent"]
    clipped: bool
    """Whether the true agreement is below FLOOR."""
    text: tuple[str, ...]
    """Lines that are shown beside it."""


def points(trials: Iterable[TrialView], axis: str, ref: str) -> list[Point]:
    """Measured and screened trials and, first, their parent. axis: a value of Objective."""
    known = [(trial, trial.report) for trial in trials if trial.report is not None]
    largest = max(
        (max(report.variant.size_bytes, report.parent.size_bytes) for _, report in known), default=1
    )
    return [_parent(known, ref, largest), *(_point(trial, report, axis, largest) for trial, report in known)]


def _parent(known: Sequence[tuple[TrialView, Report]], ref: str, largest: int) -> Point:
    size = known[0][1].parent.size_bytes if known else largest
    told = (ref, "parent", *((quantities.size(size),) if known else ()))
    return Point(0, 1.0, 1.0, 1.0, 100.0, _px(size, largest), "parent", clipped=False, text=told)


def _point(trial: TrialView, report: Report, axis: str, largest: int) -> Point:
    x, low, high = relative(report, axis)
    agreement = report.answers.agreement
    return Point(
        number=trial.number,
        x=x,
        low=low,
        high=high,
        y=max(agreement, FLOOR) * 100,
        px=_px(report.variant.size_bytes, largest),
        group=group(trial),
        clipped=agreement < FLOOR,
        text=(
            f"{trial.number} · {words.trial_title(trial)}",
            f"{words.trial_badge(trial).word.lower()}{' roughly' if trial.screened else ''}",
            *(f"{words.ratio(each.speedup)} as fast at batch {each.batch}" for each in report.timings),
            f"same answer on {quantities.share(agreement)} of rows",
            quantities.size(report.variant.size_bytes),
        ),
    )


def _px(size: int, largest: int) -> float:
    """Area by size, so that a bubble twice as large to the eye is twice as many bytes."""
    return round(max(_SMALLEST_PX, _LARGEST_PX * math.sqrt(size / max(1, largest))), 1)


def group(trial: TrialView) -> Group:
    """Which colour a trial has."""
    if trial.decision is not None:
        return "accepted" if trial.decision.accepted else "rejected"
    return _GROUPS.get(trial.state, "screened")


def relative(report: Report, axis: str) -> tuple[float, float, float]:
    """The axis' figure of the variant as a multiple of its parent's, with quartiles."""
    if axis == Objective.SIZE:
        same = 1 / max(report.shrink, 1e-9)
        return same, same, same
    if axis == Objective.MEMORY:
        same = report.variant.memory_bytes / max(1, report.parent.memory_bytes)
        return same, same, same
    timing = timing_for(report, axis)
    return _inverse(timing.speedup), _inverse(timing.speedup_high), _inverse(timing.speedup_low)


def timing_for(report: Report, objective: str) -> Timing:
    """The batch size that counts: the largest for throughput, else the smallest."""
    ordered = sorted(report.timings, key=lambda timing: timing.batch)
    return ordered[-1] if objective == Objective.THROUGHPUT else ordered[0]


def _inverse(ratio: float) -> float:
    return 1 / max(ratio, 1e-9)


def front(shown: Iterable[Point]) -> list[int]:
    """Numbers of the points that no other beats in both directions, from left to right.

    The parent counts; what was only screened, or failed, does not.
    """
    fit = [each for each in shown if each.group in ("accepted", "rejected", "parent") and not each.clipped]
    found: list[Point] = []
    for each in sorted(fit, key=lambda point: (point.x, -point.y, point.number)):
        if not found or each.y > found[-1].y:
            found.append(each)
    return [each.number for each in found]


def axis_title(axis: str, trials: Iterable[TrialView]) -> str:
    """What the horizontal axis shows, with its unit."""
    if axis in _AXES:
        return f"{_AXES[Objective(axis)]}, multiple of the parent's"
    report = next((trial.report for trial in trials if trial.report is not None), None)
    batch = f" at batch {timing_for(report, axis).batch}" if report else ""
    return f"Latency{batch}, multiple of the parent's"


def chart(trials: Sequence[TrialView], axis: str, ref: str, selected: int | None) -> dict[str, Any]:
    """All that the chart draws, as plain JSON."""
    shown = points(trials, axis, ref)
    return {
        "points": [asdict(point) for point in shown],
        "front": front(shown),
        "xTitle": axis_title(axis, trials),
        "yTitle": "Same answer, % of rows",
        "floor": FLOOR * 100,
        "selected": selected,
    }


# --- rows ---


def rows(trials: Sequence[TrialView], search: SearchView) -> list[dict[str, Any]]:
    """The trials as a table, best first: accepted by the objective, then the others by number."""
    batches = sorted(
        {timing.batch for trial in trials if trial.report is not None for timing in trial.report.timings}
    )
    ordered = sorted(trials, key=lambda trial: _order(trial, search.objective))
    registered = any(trial.version_ref for trial in trials)
    return [
        _table_row(trial, search, batches) | ({"Version": trial.version_ref or ""} if registered else {})
        for trial in ordered
    ]


def _order(trial: TrialView, objective: str) -> tuple[int, float, int]:
    if trial.accepted and trial.report is not None:
        return 0, relative(trial.report, objective)[0], trial.number
    return 1, 0.0, trial.number


def _table_row(trial: TrialView, search: SearchView, batches: Iterable[int]) -> dict[str, Any]:
    report = trial.report
    speeds = {timing.batch: words.ratio(timing.speedup) for timing in report.timings} if report else {}
    return {
        "Trial": f"{trial.number}{' ★ best' if search.best == trial.number else ''}",
        "Method": words.trial_title(trial),
        "State": words.trial_badge(trial),
        **{f"Batch {batch}": speeds.get(batch, quantities.NOTHING) for batch in batches},
        "Same answer": quantities.share(report.answers.agreement) if report else quantities.NOTHING,
        "Size": quantities.size(report.variant.size_bytes) if report else quantities.NOTHING,
    }


def reason_rows(trials: Iterable[TrialView]) -> list[dict[str, str]]:
    """Trials that came to nothing, with the reason."""
    return [
        {"Trial": str(trial.number), "Method": words.trial_title(trial), "Why": why(trial)}
        for trial in trials
        if why(trial)
    ]


def why(trial: TrialView) -> str:
    """Why a trial failed, was dropped or rejected; "" for any other."""
    if trial.reason is not None:
        return words.sentence(trial.reason.message)
    if trial.decision is not None and not trial.decision.accepted:
        return " ".join(words.reasons(trial.decision))
    return ""


def label(trial: TrialView) -> str:
    """A trial as an entry of a list: "3 · Dynamic int8 · engine onednn".

    Its state is left out: browsers send the entry's words back, so they may not change while trials go on.
    """
    return f"{trial.number} · {words.trial_title(trial)}"


def chosen(trials: Sequence[TrialView], wanted: str | None, search: SearchView | None) -> TrialView | None:
    """The trial that the address names, else the best one, else the first that was measured."""
    by_number = {trial.number: trial for trial in trials}
    if wanted and wanted.isdecimal() and int(wanted) in by_number:
        return by_number[int(wanted)]
    if search is not None and search.best in by_number:
        return by_number[search.best]
    return next((trial for trial in trials if trial.report is not None), None)


# --- the search in words ---


def counts_words(trials: Sequence[TrialView]) -> str:
    """ "12 trials: 3 accepted, 4 rejected, 2 failed, 3 dropped"."""
    counted: dict[str, int] = {}
    for trial in trials:
        word = words.trial_badge(trial).word.lower()
        counted[word] = counted.get(word, 0) + 1
    told = ", ".join(f"{count} {word}" for word, count in counted.items())
    return f"{quantities.count(len(trials), 'trial')}{': ' if told else ''}{told}"


def spent_words(search: SearchView) -> str:
    """How much of its time the search has used, and why it stopped."""
    used = f"{quantities.duration(search.spent_s)} of {quantities.duration(search.minutes * 60)} used"
    return f"{used}. {words.sentence(search.ended)}" if search.ended else used
