"""A rollout's report: what was asked, who did what when, what the evidence said; as JSON and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from sqlalchemy.orm import Session

from control_plane.registry import rollout_history
from control_plane.registry.tables import Event, RolloutEvidence
from control_plane.registry.tables import Rollout as Row
from control_plane.services import rollout_views
from control_plane.services.context import Context

MAX_EVENTS: Final = 1000
"""Events of a report, the latest ones."""
_WORST: Final = 20


def assemble(ctx: Context, session: Session, row: Row) -> dict[str, Any]:
    """The report of *row* as plain JSON.

    {"rollout": view, "plan": as it was followed, "timeline": events oldest first, "steps": when each was
    entered and left, "people": who acted, "gates", "verdict", "evidence": sums and where counting stopped,
    "disagreements": the farthest apart}
    """
    found, _ = rollout_history.events(session, row, offset=0, limit=MAX_EVENTS)
    timeline = [_entry(event) for event in reversed(found)]
    view = rollout_views.views(ctx, session, [row])[0]
    worst = rollout_history.disagreements(session, row.id, limit=_WORST)
    plain = msgspec.to_builtins(view)
    return {
        "rollout": plain,
        "plan": row.plan,
        "timeline": timeline,
        "steps": step_times(timeline),
        "people": sorted({entry["actor"] for entry in timeline}),
        "gates": plain["gates"],
        "verdict": row.verdict,
        "evidence": _evidence(session, row),
        "disagreements": [msgspec.to_builtins(rollout_views.disagreement_view(each)) for each in worst],
    }


def step_times(timeline: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """When each step was at work: {"step" from 1, "weight", "entered_at", "left_at" or None}. Pure.

    timeline: entries oldest first. A step is entered when its weight is decided and left by the next move.
    """
    steps: list[dict[str, Any]] = []
    for entry in timeline:
        if entry.get("from_state") is None or entry.get("state") is None:
            continue
        open_step = steps[-1] if steps and steps[-1]["left_at"] is None else None
        if entry["state"] == "shifting":
            _close(open_step, entry["at"])
            steps.append(
                {
                    "step": entry["step"] + 1,
                    "weight": entry["weight"],
                    "entered_at": entry["at"],
                    "left_at": None,
                }
            )
        elif entry["state"] not in ("baking", "final", "awaiting_approval"):
            _close(open_step, entry["at"])
    return steps


def markdown(report: Mapping[str, Any]) -> str:
    """The report as a Markdown page. Pure."""
    view = report["rollout"]
    lines = [
        f"# Rollout of {_text(view['candidate_ref'])} to {_text(view['endpoint'])}",
        "",
        f"**{_text(view['phase'])}** — {_text(view['sentence'])}",
        "",
        *_facts(view),
        *_section("Steps", ("step", "weight", "entered", "left"), _step_rows(report["steps"])),
        *_section("Gates before traffic", ("gate", "outcome", "what it said"), _gate_rows(report["gates"])),
        *_verdict(report),
        *_section("Timeline", ("at", "who", "what"), _timeline_rows(report["timeline"])),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _entry(event: Event) -> dict[str, Any]:
    kept = ("from_state", "state", "step", "weight", "revision", "reason", "code")
    return {
        "at": event.at,
        "actor": event.actor,
        "action": event.action,
        "message": event.message,
        **{name: event.details.get(name) for name in kept},
    }


def _close(step: dict[str, Any] | None, at: float) -> None:
    if step is not None:
        step["left_at"] = at


def _evidence(session: Session, row: Row) -> dict[str, Any] | None:
    stored = session.get(RolloutEvidence, row.id)
    if stored is None:
        return None
    return {"cursor_ms": stored.cursor_ms, "state": stored.state}


def _facts(view: Mapping[str, Any]) -> list[str]:
    facts = (
        ("Strategy", view["strategy"]),
        ("Stable", f"{view['stable_ref']} ({view['stable_digest']})"),
        ("Candidate", f"{view['candidate_ref']} ({view['candidate_digest']})"),
        ("Started", f"{_when(view['created_at'])} by {view['created_by']}"),
        ("Ended", _when(view["ended_at"]) or "not yet"),
        ("Reason", view["reason"]),
        ("Gates left out because", view["skip_gates"]),
        ("Rollout", view["id"]),
    )
    return [*(f"- {name}: {_text(value)}" for name, value in facts if value), ""]


def _step_rows(steps: Sequence[Mapping[str, Any]]) -> Iterator[tuple[object, ...]]:
    for each in steps:
        yield each["step"], f"{each['weight']:.0%}", _when(each["entered_at"]), _when(each["left_at"])


def _gate_rows(gates: Sequence[Mapping[str, Any]]) -> Iterator[tuple[object, ...]]:
    for each in gates:
        yield each["title"], each["outcome"], each["sentence"]


def _timeline_rows(timeline: Sequence[Mapping[str, Any]]) -> Iterator[tuple[object, ...]]:
    for each in timeline:
        yield _when(each["at"]), each["actor"], each["message"]


def _verdict(report: Mapping[str, Any]) -> list[str]:
    verdict = report["verdict"]
    if not verdict:
        return ["## Evidence", "", "No verdict was given.", ""]
    head = [
        "## Evidence",
        "",
        f"**{_text(verdict['kind'])}** at {_when(verdict['at'])} — {_text(verdict['sentence'])}",
        "",
    ]
    columns = ("guardrail", "says", "stable", "candidate", "difference", "tolerance", "requests", "why")
    return [*head, *_table(columns, _reading_rows(verdict.get("readings") or ()))]


def _reading_rows(readings: Sequence[Mapping[str, Any]]) -> Iterator[tuple[object, ...]]:
    for each in readings:
        figure = each["figure"]
        yield (
            each["title"],
            each["outcome"],
            _quantity(figure["stable"], figure["unit"]),
            _quantity(figure["candidate"], figure["unit"]),
            _interval(figure),
            f"{each['tolerance']:g}",
            f"{each['stable_n']} / {each['candidate_n']}",
            each["sentence"],
        )


def _interval(figure: Mapping[str, Any]) -> str:
    unit = figure["unit"]
    if figure["difference"] is None:
        return ""
    ends = [_quantity(figure[end], unit) for end in ("low", "high")]
    return _quantity(figure["difference"], unit) + (f" ({ends[0]} to {ends[1]})" if all(ends) else "")


def _quantity(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:.2%}" if unit == "share" else f"{value:.4g} {unit}"


def _section(title: str, columns: Sequence[str], rows: Iterator[tuple[object, ...]]) -> list[str]:
    table = _table(columns, rows)
    return [f"## {title}", "", *(table or ["None.", ""])]


def _table(columns: Sequence[str], rows: Iterator[tuple[object, ...]]) -> list[str]:
    body = [f"| {' | '.join(_text(cell) for cell in row)} |" for row in rows]
    if not body:
        return []
    return [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *body, ""]


def _when(at: float | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _text(value: object) -> str:
    """*value* on one line, without what Markdown or HTML would take for markup."""
    line = " ".join(str(value).split())
    for char in "\\|`*_<>[]":
        line = line.replace(char, f"\\{char}")
    return line
