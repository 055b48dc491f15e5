"""Debugger runs in words: heads, states, stages, lists, and what an edit changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from control_plane.domain.debugging import DebugRunDetail, DebugRunView, InputView, SideView
from control_plane.domain.job import JobState
from control_plane.ui.viewmodels import debugger_tensors as tensors
from control_plane.ui.viewmodels import quantities
from control_plane.ui.viewmodels.badges import Badge
from control_plane.ui.viewmodels.debugger_values import index_words
from control_plane.ui.viewmodels.endpoints import Step
from serving_agent.contract.inspection import STAGES, Edit, Failure, InspectedRun, Stage

Answers = Mapping[str, Sequence[float | str]]
"""Elements of each output."""
_TITLES: Final = {
    "inputs": "Inputs",
    "preprocess": "Preprocess",
    "predict": "Predict",
    "postprocess": "Postprocess",
}
_HINTS: Final = {
    "inputs": "What the client sent",
    "preprocess": "What goes into the network",
    "predict": "What comes out of the network",
    "postprocess": "What the client gets",
}
_HOUR_S: Final = 3600.0


def title(view: DebugRunView) -> str:
    """A run's name, or what it is of."""
    return view.name or pair(view)


def pair(view: DebugRunView) -> str:
    """The versions: "digits@2 beside digits@3"."""
    return f"{view.a} beside {view.b}" if view.b else view.a


def badge(view: DebugRunView) -> Badge:
    """How a run stands."""
    if view.state == JobState.QUEUED:
        return Badge("○", "Waiting", "idle")
    if view.state == JobState.RUNNING:
        return Badge("◐", "Running", "busy")
    if view.state == JobState.SUCCEEDED:
        return Badge("✓", "Done", "good")
    if view.state == JobState.CANCELLED:
        return Badge("○", "Cancelled", "idle")
    return Badge("✕", "Failed", "bad")


def found_badges(detail: DebugRunDetail) -> tuple[Badge, ...]:
    """What stands out in a run that has ended: where it stopped, NaN, a divergence."""
    runs = [side.run for side in detail.sides if side.run is not None]
    stopped = next((stage for run in runs if (stage := failed_stage(run)) is not None), None)
    found = [Badge("✕", f"Stopped in {stopped.name}", "bad")] if stopped else []
    if any(tensors.wrong(point.outputs) for run in runs for point in run.points):
        found.append(Badge("✕", "NaN or Inf", "bad"))
    if detail.comparison is not None and detail.comparison.divergence is not None:
        found.append(Badge("▲", "Diverges", "warn"))
    if detail.view.edits:
        found.append(Badge("✎", "Edited", "busy"))
    return tuple(found)


def lead(view: DebugRunView, now: float, *, named: bool) -> str:
    """Who, when, on what, how large and how long it is kept."""
    parts = [
        pair(view) if named and view.name else "",
        f"on {view.input}",
        f"by {view.created_by} {quantities.ago(view.created_at, now)}",
        quantities.size(view.size_bytes) if view.ended and view.size_bytes else "",
        kept(view, now) if view.ended else "",
    ]
    return " · ".join(part for part in parts if part)


def kept(view: DebugRunView, now: float) -> str:
    """How much longer a run is kept."""
    hours = (view.expires_at - now) / _HOUR_S
    if hours <= 0:
        return "is deleted soon"
    if hours < 48:
        return f"kept {quantities.count(max(1, round(hours)), 'hour')} more"
    return f"kept {quantities.count(round(hours / 24), 'day')} more"


# --- stages ---


def stage_title(name: str) -> str:
    """A stage for people."""
    return _TITLES[name]


def steps(run: InspectedRun) -> tuple[Step, ...]:
    """The four steps of the request."""
    by_name = {stage.name: stage for stage in run.stages}
    return tuple(_step(name, by_name.get(name)) for name in STAGES)


def _step(name: str, stage: Stage | None) -> Step:
    if stage is None or stage.state == "not_reached":
        return Step(_TITLES[name], "next", "not reached", _HINTS[name])
    took = quantities.duration_ms(stage.seconds)
    if stage.state == "failed":
        return Step(_TITLES[name], "failed", f"failed after {took}", _HINTS[name])
    said = f"{quantities.count(len(stage.tensors), 'tensor')}" + (f" in {took}" if name != "inputs" else "")
    return Step(_TITLES[name], "done", said, _HINTS[name])


def stage_note(stage: Stage) -> str:
    """What a stage's tensors are, and how long it took."""
    took = "" if stage.name == "inputs" else f", {quantities.duration_ms(stage.seconds)}"
    return f"{_HINTS[stage.name].lower()}{took if stage.state != 'not_reached' else ''}"


def failed_stage(run: InspectedRun) -> Stage | None:
    """The stage that stopped the request."""
    return next((stage for stage in run.stages if stage.state == "failed"), None)


def failure_head(stage: Stage, failure: Failure) -> str:
    """ "Stopped in preprocess: ValueError: …"."""
    return f"Stopped in {stage.name}: {failure.type}: {failure.message}"


def failure_place(stage: Stage, failure: Failure) -> str:
    """Where and when it happened, and what to do."""
    module = f", in module {failure.module}" if failure.module else ""
    where = f"At {failure.place}{module}" if failure.place else f"In {stage.name}{module}"
    return (
        f"{where}, {quantities.duration_ms(stage.seconds)} after the stage began. All up to it is below: "
        "compare shapes and types of the tensors with what the version takes, then run another input."
    )


def cost(run: InspectedRun) -> str:
    """What the recording cost, and whether it changed anything."""
    parts = [f"Loaded in {quantities.duration(run.load_s)} on {run.device}"]
    if run.plain_s is not None and run.recorded_s is not None and run.plain_s > 0:
        parts.append(
            f"one inference takes {quantities.duration_ms(run.plain_s)}, recorded "
            f"{quantities.duration_ms(run.recorded_s)} ({run.recorded_s / run.plain_s:.1f}×)"
        )
    if run.same_outputs is not None:
        parts.append(
            "both gave the same outputs bit for bit"
            if run.same_outputs
            else "the two gave different outputs: the model is not deterministic"
        )
    return "; ".join(parts) + "."


def nothing_inside(run: InspectedRun) -> str:
    """Why there are no layers to walk."""
    return (
        tensors.stopped(run.note)
        if run.note
        else "Nothing ran inside the network before the request stopped."
    )


# --- edits ---


def edit_words(edit: Edit) -> str:
    """One edit: "hidden [0, 3] = 2.5"."""
    which = (
        f" {edit.tensor}"
        if isinstance(edit.tensor, str)
        else (f" output {edit.tensor}" if edit.tensor else "")
    )
    return f"{edit.point}{which} {index_words(edit.index)} = {tensors.number(edit.number)}"


def edits_words(edits: Sequence[Edit]) -> str:
    """All edits of a run."""
    return "; ".join(edit_words(edit) for edit in edits)


def answer_rows(before: Answers, after: Answers, most: int = 24) -> list[dict[str, object]]:
    """The answer's elements before and after, those that changed most first."""
    rows = [
        (f"{name}[{place}]" if len(values) > 1 else name, _at(before.get(name, ()), place), value)
        for name, values in after.items()
        for place, value in enumerate(values)
    ]
    rows.sort(key=lambda row: -_gap(row[1], row[2]))
    return [
        {"Output": name, "Before": _told(was), "After": _told(now), "Change": _changed(was, now)}
        for name, was, now in rows[:most]
    ]


def unchanged(before: Answers, after: Answers) -> bool:
    """Whether every element of the answer is what it was."""
    return all(
        _gap(_at(before.get(name, ()), place), value) == 0.0
        for name, values in after.items()
        for place, value in enumerate(values)
    )


def _at(values: Sequence[float | str], place: int) -> float | str | None:
    return values[place] if place < len(values) else None


def _gap(was: float | str | None, now: float | str) -> float:
    if isinstance(was, str) or isinstance(now, str) or was is None:
        return 0.0 if was == now else math.inf
    if was == now or (math.isnan(was) and math.isnan(now)):
        return 0.0
    gap = abs(now - was)
    return math.inf if math.isnan(gap) else gap


def _told(value: float | str | None) -> str:
    return value if isinstance(value, str) else tensors.number(value)


def _changed(was: float | str | None, now: float | str) -> str:
    if was is None:
        return "new"
    if _gap(was, now) == 0.0:
        return "none"
    if isinstance(was, str) or isinstance(now, str):
        return "another"
    return f"+{tensors.number(now - was)}" if now > was else tensors.number(now - was)


# --- lists ---


def inputs_words(inputs: Sequence[InputView]) -> str:
    """What a run was given: "image FP32 1 × 1 × 8 × 8"."""
    return ", ".join(f"{each.name} {each.datatype} {tensors.shape(each.shape)}" for each in inputs)


def problem_of(side: SideView) -> tuple[str, str | None] | None:
    """Why there is nothing to see of a side, and what to do."""
    if side.problem is None:
        return None
    return f"{side.ref}: {side.problem.message}", side.problem.next_step


def tokens_of(run: InspectedRun | None, row: int) -> tuple[str, ...]:
    """Pieces of one row's text."""
    return run.tokens[row] if run is not None and row < len(run.tokens) else ()


def related(detail: DebugRunDetail) -> list[tuple[str, DebugRunView]]:
    """Runs it came from and runs that came of it, each with how it is related."""
    return [
        *(("came from", view) for view in detail.ancestors),
        *(("led to", view) for view in detail.children),
    ]
