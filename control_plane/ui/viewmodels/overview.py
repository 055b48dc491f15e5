"""Overview: key figures, the first steps of an empty system, and what each endpoint does just now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from control_plane.domain.views import Attention, Status
from control_plane.ui.viewmodels import quantities
from control_plane.ui.viewmodels.badges import Tone

RECENT_POINTS: Final = 5
"""A current figure is the latest value among this many last points: collection lags a little behind now."""

Values = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """One figure with its recent past; *values* in the figure's unit, oldest first."""

    label: str
    value: str
    note: str
    values: Values
    tone: Tone


@dataclass(frozen=True, slots=True)
class FirstStep:
    """One step of the empty system's checklist."""

    number: int
    title: str
    text: str
    done: bool
    link: str
    """Page script to open."""
    action: str


def first_steps(status: Status) -> tuple[FirstStep, ...]:
    """upload → deploy → roll out."""
    return (
        FirstStep(
            1, "Upload a model", "Weights, a Hugging Face folder or a torch.export program becomes model@1.",
            status.versions > 0, "upload", "Upload",
        ),
        FirstStep(
            2, "Deploy it", "Pick a version and a name; it answers behind one stable address.",
            status.endpoints > 0, "endpoints", "Deploy",
        ),
        FirstStep(
            3, "Promote the better one", "Roll the next version out: on when proven, back when not.",
            status.endpoints > 0 and status.versions > 1 and status.agents_ready > 1, "rollouts", "Rollouts",
        ),
    )  # fmt: skip


def panel(bundle: Mapping[str, Any], panel_id: str) -> Sequence[Mapping[str, Any]]:
    """The lines of one panel of a live bundle; none when it is absent or empty.

    Without the line of requests that named no endpoint: those are nobody's traffic.
    """
    found = next((entry for entry in bundle.get("panels", ()) if entry["id"] == panel_id), None)
    return [line for line in found["lines"] if line.get("labels", {}).get("endpoint") != ""] if found else ()


def combined(lines: Iterable[Mapping[str, Any]], how: Callable[[Iterable[float]], float]) -> Values:
    """Several lines as one: *how* (sum, max, ...) over the lines that have a value at each time."""
    by_time: dict[float, list[float]] = {}
    for line in lines:
        for x, y in zip(line["x"], line["y"], strict=True):
            known = by_time.setdefault(x, [])
            if y is not None:
                known.append(y)
    return tuple(how(by_time[x]) if by_time[x] else None for x in sorted(by_time))


def in_milliseconds(values: Values) -> Values:
    """Seconds as milliseconds."""
    return tuple(None if value is None else value * 1000 for value in values)


def latest(values: Sequence[float | None]) -> float | None:
    """The newest known value among the last few points."""
    return next((value for value in reversed(values[-RECENT_POINTS:]) if value is not None), None)


def key_figures(status: Status, bundle: Mapping[str, Any]) -> tuple[KeyFigure, ...]:
    """Agents ready, request rate, error rate, p99 and memory."""
    requests = combined(panel(bundle, "request_rate"), sum)
    errors = combined(panel(bundle, "error_rate"), max)
    p99 = in_milliseconds(combined(panel(bundle, "latency_p99"), max))
    error = latest(errors)
    return (
        _agents(status),
        KeyFigure("Requests", quantities.rate(latest(requests)), "all endpoints", requests, "busy"),
        KeyFigure(
            "Error rate", quantities.share(error), "worst endpoint", errors, "bad" if error else "good"
        ),
        KeyFigure("p99 latency", quantities.milliseconds(latest(p99)), "slowest endpoint", p99, "busy"),
        _memory(bundle),
    )


def _agents(status: Status) -> KeyFigure:
    tone: Tone = "idle" if not status.agents_wanted else "good"
    if status.agents_ready < status.agents_wanted:
        tone = "warn"
    value = f"{status.agents_ready} / {status.agents_wanted}"
    return KeyFigure("Agents ready", value, quantities.count(status.endpoints, "endpoint"), (), tone)


def _memory(bundle: Mapping[str, Any]) -> KeyFigure:
    gpu = combined(panel(bundle, "gpu_memory"), sum)
    host = combined(panel(bundle, "host_memory"), max)
    label, values = ("GPU memory", gpu) if latest(gpu) is not None else ("Host memory", host)
    now = latest(values)
    value = quantities.NOTHING if now is None else quantities.size(now)
    return KeyFigure(label, value, "in use", values, "busy")


@dataclass(frozen=True, slots=True)
class Traffic:
    """What an endpoint does just now, in words."""

    requests: str
    errors: str
    p99: str


def traffic(bundle: Mapping[str, Any], endpoint: str) -> Traffic:
    """Current traffic of one endpoint, all its versions together."""
    own = {
        name: of_endpoint(panel(bundle, name), endpoint)
        for name in ("request_rate", "error_rate", "latency_p99")
    }
    return Traffic(
        quantities.rate(latest(combined(own["request_rate"], sum))),
        quantities.share(latest(combined(own["error_rate"], max))),
        quantities.milliseconds(latest(in_milliseconds(combined(own["latency_p99"], max)))),
    )


def of_endpoint(lines: Iterable[Mapping[str, Any]], endpoint: str) -> list[Mapping[str, Any]]:
    """The lines that belong to *endpoint*, by their labels."""
    return [line for line in lines if line.get("labels", {}).get("endpoint") == endpoint]


def named(item: Attention) -> str:
    """The subject to show beside a message: a name for people, not an id, and not twice."""
    is_id = len(item.subject) == 32 and set(item.subject) <= set("0123456789abcdef")
    return "" if is_id or item.subject == item.kind or item.subject in item.message else item.subject
