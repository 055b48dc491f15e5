"""What came of a run, in one sentence. Pure."""

from __future__ import annotations

from typing import Final

from control_plane.domain import breakpoints
from control_plane.domain.breakpoints import Condition
from control_plane.domain.divergence import Comparison
from serving_agent.contract.inspection import InspectedRun, Stage

MAX_CHARS: Final = 500
NONFINITE: Final = Condition(kind="nonfinite")


def summed_up(
    ref: str,
    run: InspectedRun | None,
    problem: str,
    comparison: Comparison | None,
    beside: tuple[str, InspectedRun] | None = None,
) -> str:
    """The most telling thing of it all, without a full stop.

    ref: names A, whose *run* it is; beside: B's name and run, where it has one.
    """
    return _sentence(ref, run, problem, comparison, beside)[:MAX_CHARS]


def compared(a: InspectedRun, b: InspectedRun, sentence: str) -> str:
    """*sentence*, which says what a comparison of both comes to, behind what it could not reach."""
    stopped = [
        f"{name} stopped in {stage.name}"
        for name, run in (("A", a), ("B", b))
        if (stage := failed_stage(run))
    ]
    if not stopped:
        return sentence
    return f"{' and '.join(stopped)}; before that, {sentence[0].lower()}{sentence[1:]}"


def failed_stage(run: InspectedRun) -> Stage | None:
    """The stage that stopped the run."""
    return next((stage for stage in run.stages if stage.state == "failed"), None)


def _sentence(
    ref: str,
    run: InspectedRun | None,
    problem: str,
    comparison: Comparison | None,
    beside: tuple[str, InspectedRun] | None,
) -> str:
    if run is None:
        return f"{ref}: {problem}"
    for name, each in ((ref, run), *([beside] if beside is not None else [])):
        stopped = failed_stage(each)
        if stopped is not None:
            return f"{name} {_how_stopped(stopped)}"
    place = breakpoints.find(run.points, NONFINITE)
    wrong = f"{ref} has its first NaN or Inf at {run.points[place].id}" if place is not None else ""
    if comparison is not None:
        return f"{comparison.sentence}; {wrong}" if wrong else comparison.sentence
    if wrong or problem:
        return "; ".join(filter(None, (wrong, problem)))
    if not run.points:
        return run.note or f"{ref} was run; nothing inside it can be captured"
    what = "layer" if run.level == "module" else "node"
    return f"{len(run.points)} {what}{'s' if len(run.points) > 1 else ''}, all finite"


def _how_stopped(stage: Stage) -> str:
    failure = stage.failure
    why = f": {failure.type}: {failure.message}" if failure is not None else ""
    where = f" at {failure.module}" if failure is not None and failure.module else ""
    return f"stopped in {stage.name}{where}{why}"
