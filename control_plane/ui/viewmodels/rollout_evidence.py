"""What the evidence of a rollout looks like: a tile a guardrail, gates, disagreements, chart marks. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from control_plane.domain.views import DisagreementView, EventView, GateView, RolloutView
from control_plane.ui.viewmodels import live, overview, quantities, rollouts
from control_plane.ui.viewmodels.badges import Badge
from control_plane.ui.viewmodels.picture import data_url

Reading = Mapping[str, Any]
_OUTCOMES: Final[dict[str, Badge]] = {
    "worse": Badge("✕", "Worse", "bad"),
    "safe": Badge("✓", "Safe", "good"),
    "undecided": Badge("◐", "Undecided", "busy"),
    "no_data": Badge("?", "No data", "warn"),
    "not_applicable": Badge("○", "Not at this step", "idle"),
}
_ORDER: Final = {"worse": 0, "not_applicable": 2}
_GATES: Final[dict[str, Badge]] = {
    "passed": Badge("✓", "Passed", "good"),
    "failed": Badge("✕", "Failed", "bad"),
    "waived": Badge("▲", "Left out", "warn"),
    "not_applicable": Badge("○", "Does not apply", "idle"),
    "running": Badge("◐", "Running", "busy"),
}
_MOST_TEXT: Final = 160
_ROOM: Final = 1.2
"""How much wider than what it shows the scale of an interval is."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Where an interval and its limits lie on a line from 0 to 1; zero is at *zero*."""

    zero: float
    low: float
    high: float
    point: float
    tolerance: float | None
    limit: float | None


@dataclass(frozen=True, slots=True)
class Tile:
    """One guardrail for people; *worse* and *safe* in [0, 1], everything else in words."""

    title: str
    badge: Badge
    sentence: str
    stable: str
    candidate: str
    difference: str
    interval: str
    allowed: str
    worse: float
    safe: float
    counts: str
    dimmed: bool
    observe_only: bool
    scale: Scale | None


def tiles(readings: Iterable[Reading]) -> tuple[Tile, ...]:
    """A tile a guardrail: what is worse first, what does not apply at this step last."""
    ordered = sorted(readings, key=lambda reading: _ORDER.get(str(reading["outcome"]), 1))
    return tuple(_tile(reading) for reading in ordered)


def _tile(reading: Reading) -> Tile:
    figure = reading["figure"]
    unit = str(figure["unit"])
    outcome = str(reading["outcome"])
    return Tile(
        title=_capital(str(reading["title"])),
        badge=_OUTCOMES.get(outcome, Badge("○", outcome.replace("_", " "), "idle")),
        sentence=str(reading["sentence"]).removeprefix(f"{reading['title']}: "),
        stable=value_words(figure["stable"], unit),
        candidate=value_words(figure["candidate"], unit),
        difference=difference_words(figure["difference"], unit),
        interval=_interval(figure, unit),
        allowed=_allowed(reading),
        worse=_share(reading["worse"]),
        safe=_share(reading["safe"]),
        counts=_counts(reading),
        dimmed=outcome == "not_applicable",
        observe_only=bool(reading.get("observe_only")),
        scale=_scale(reading, figure),
    )


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _share(value: Any) -> float:
    return min(1.0, max(0.0, float(value)))


def value_words(value: float | None, unit: str) -> str:
    """One version's figure with its unit."""
    if value is None:
        return quantities.NOTHING
    if unit == "share":
        return quantities.share(value)
    if unit == "s":
        return quantities.duration_ms(value)
    return f"{value:.3g} {unit}".rstrip()


def difference_words(value: float | None, unit: str) -> str:
    """A difference with its sign: shares in percentage points."""
    if value is None:
        return quantities.NOTHING
    factor, shown = {"share": (100.0, "pp"), "s": (1000.0, "ms")}.get(unit, (1.0, unit))
    return f"{_signed(value * factor)} {shown}".rstrip()


def _signed(value: float) -> str:
    text = f"{value:+.2g}" if abs(value) < 10 else f"{value:+.0f}"
    return text.replace("-", "−") if float(text) else "±0"


def _interval(figure: Mapping[str, Any], unit: str) -> str:
    low, high = figure["low"], figure["high"]
    if low is None or high is None:
        known = low if high is None else high
        return (
            "" if known is None else f"{'from' if high is None else 'up to'} {difference_words(known, unit)}"
        )
    bare = difference_words(low, unit).partition(" ")[0]
    return f"{bare} … {difference_words(high, unit)}"


def _allowed(reading: Reading) -> str:
    unit = str(reading["figure"]["unit"])
    tolerance, limit = (allowed_words(reading[name], unit) for name in ("tolerance", "max_regression"))
    spared = f"up to {tolerance} does not count" if reading["tolerance"] else "no tolerance"
    return f"{spared} · safe excludes {limit}"


def allowed_words(value: float, unit: str) -> str:
    """A tolerance or largest regression: of shares in percentage points, of times relative to stable's."""
    if unit == "s":
        return f"+{value * 100:.3g} %"
    return f"+{value * 100:.3g} pp" if unit == "share" else f"{value:.3g} {unit}"


def _counts(reading: Reading) -> str:
    counts = f"n = {reading['candidate_n']:,} candidate, {reading['stable_n']:,} stable"
    more = reading.get("more_requests")
    return f"{counts} · about {quantities.count(int(more), 'request')} to go" if more else counts


def _scale(reading: Reading, figure: Mapping[str, Any]) -> Scale | None:
    """The interval on a line that is symmetric about zero; limits where they are in its unit."""
    known = [figure[name] for name in ("low", "high", "difference")]
    if None in known or reading["outcome"] == "not_applicable":
        return None
    low, high, point = (float(value) for value in known)
    limits = [float(reading[name]) for name in ("tolerance", "max_regression")]
    if figure["unit"] != "share":
        limits = []
    half = max(abs(low), abs(high), *limits, 1e-9) * _ROOM

    def at(value: float) -> float:
        return min(1.0, max(0.0, 0.5 + value / half / 2))

    tolerance, limit = (at(value) for value in limits) if limits else (None, None)
    return Scale(0.5, at(low), at(high), at(point), tolerance, limit)


# --- gates ---


def gate_rows(gates: Iterable[GateView]) -> list[dict[str, Any]]:
    """Rows of the gates' table; what was measured stands behind the sentence."""
    return [
        {
            "Gate": gate.title,
            "Outcome": _GATES.get(gate.outcome, Badge("○", gate.outcome, "idle")),
            "Found": " · ".join([gate.sentence, *_figures(gate)]),
        }
        for gate in gates
    ]


def _figures(gate: GateView) -> list[str]:
    return [f"{name.replace('_', ' ')} {_figure(value)}" for name, value in gate.figures.items()]


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else _shortened(value)


# --- disagreements ---


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One request that the versions answered differently; *picture* is a data URL, or None."""

    id: str
    title: str
    picture: str | None
    inputs: str
    stable: str
    candidate: str
    link: str


def disagreements(found: Iterable[DisagreementView], now: float) -> tuple[Disagreement, ...]:
    """The gallery, in the order given."""
    return tuple(_disagreement(each, now) for each in found)


def _disagreement(each: DisagreementView, now: float) -> Disagreement:
    measure = str(each.answers.get("measure", "distance"))
    pictures = [_picture(value) for value in (each.inputs or {}).values()]
    picture = next((url for url in pictures if url), None)
    inputs = "too large to keep" if each.inputs is None else _shortened(each.inputs)
    return Disagreement(
        id=each.id,
        title=f"{measure} {each.distance:.3g} · {quantities.ago(each.at, now)}",
        picture=picture,
        inputs="" if picture else inputs,
        stable=_answer(each.answers.get("stable")),
        candidate=_answer(each.answers.get("candidate")),
        link=each.debug_link,
    )


def _picture(value: Any) -> str | None:
    """The first row of a batch of pictures, or one picture, as a data URL."""
    for planes in (value, value[0] if isinstance(value, Sequence) and value else None):
        shape = _shape(planes)
        if len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) >= 4:
            return data_url(planes, (shape[0], shape[1], shape[2]))
    return None


def _shape(value: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = ()
    while isinstance(value, list) and value:
        shape, value = (*shape, len(value)), value[0]
    return shape


def _answer(answer: Any) -> str:
    """An answer in few words: its most likely class where it is a list of scores."""
    if isinstance(answer, Mapping) and len(answer) == 1:
        answer = next(iter(answer.values()))
    while isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], list):
        answer = answer[0]
    scores = isinstance(answer, list) and len(answer) > 1 and all(_is_number(each) for each in answer)
    if scores:
        best = max(range(len(answer)), key=lambda index: answer[index])
        return f"largest at {best}: {answer[best]:.3g}"
    return _shortened(answer)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and value == value  # NaN is not


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"


# --- charts ---


def chart_range_s(view: RolloutView, now: float) -> int:
    """The shortest range on offer that reaches back to the rollout's beginning, in seconds."""
    wanted = now - view.created_at + 60
    return next((seconds for seconds in live.RANGES.values() if seconds >= wanted), max(live.RANGES.values()))


def step_marks(events: Iterable[EventView]) -> list[dict[str, Any]]:
    """Vertical lines: when the weight changed. [{"x": ms, "text": "25 %"}], oldest first."""
    marks: list[dict[str, Any]] = []
    for event in sorted(events, key=lambda each: each.at):
        weight = event.details.get("weight")
        text = rollouts.percent(float(weight)) if isinstance(weight, int | float) else ""
        if text and (not marks or marks[-1]["text"] != text):
            marks.append({"x": round(event.at * 1000), "text": text})
    return marks


def limit_marks(view: RolloutView, bundle: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Horizontal lines by panel: from where the candidate is worse by as much as "safe" must exclude.

    Stable's own error rate as judged, and its median p99 in *bundle*, which the charts draw.
    """
    marks: dict[str, list[dict[str, Any]]] = {}
    for reading in view.readings:
        stable, limit = reading["figure"]["stable"], reading["max_regression"]
        if reading["name"] == "errors" and stable is not None:
            marks["error_rate"] = [{"y": stable + limit, "text": "limit"}]
        p99 = _median_p99(bundle, view) if reading["name"] == "latency" else None
        if p99 is not None:
            marks["latency_p99"] = [{"y": p99 * (1 + limit), "text": "limit"}]
    return marks


def _median_p99(bundle: Mapping[str, Any], view: RolloutView) -> float | None:
    lines = overview.of_endpoint(overview.panel(bundle, "latency_p99"), view.endpoint)
    of_stable = (line["y"] for line in lines if line["labels"].get("version") == view.stable_ref)
    known = [value for values in of_stable for value in values if value is not None]
    return median(known) if known else None


def event_rows(events: Iterable[EventView], zone: str | None) -> list[dict[str, Any]]:
    """What happened, newest first: when, what with its reason, and by whom."""
    return [
        {"Time": quantities.short_clock(event.at, zone), "Event": _told(event), "By": event.actor}
        for event in events
    ]


def _told(event: EventView) -> str:
    reason = event.details.get("reason")
    return f"{event.message} ({reason})" if reason and str(reason) not in event.message else event.message
