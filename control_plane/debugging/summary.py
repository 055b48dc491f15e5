"""What came of a run, in one sentence. Pure."""

from __future__ import annotations

from typing import Final

from control_plane.domain import breakpoints
from control_plane.domain.breakpoints import Condition
from control_plane.domain.divergence import Comparison
from serving_agent.contract.inspection import InspectedRun, Stage

MAX_CHARS: Final = 500
NONFINITE: Final = Condition(kind="nonfinite")


def summed_up(ref: str, run: InspectedRun | None, problem: str, comparison: Comparison | None) -> str:
    """The most telling thing of it all, without a full stop; *ref* names A, whose *run* it is."""
    return _sentence(ref, run, problem, comparison)[:MAX_CHARS]


def failed_stage(run: InspectedRun) -> Stage | None:
    """The stage that stopped the run."""
    return next((stage for stage in run.stages if stage.state == "failed"), None)


def _sentence(ref: str, run: InspectedRun | None, problem: str, comparison: Comparison | None) -> str:
    if run is None:
        return f"{ref}: {problem}"
    stopped = failed_stage(run)
    if stopped is not None:
        failure = stopped.failure
        why = f": {failure.type}: {failure.message}" if failure is not None else ""
        where = f" at {failure.module}" if failure is not None and failure.module else ""
        return f"{ref} stopped in {stopped.name}{where}{why}"
    place = breakpoints.find(run.points, NONFINITE)
    if place is not None:
        return f"{ref} has its first NaN or Inf at {run.points[place].id}"
    if comparison is not None:
        return comparison.sentence
    if problem:
        return problem
    if not run.points:
        return run.note or f"{ref} was run; nothing inside it can be captured"
    what = "layer" if run.level == "module" else "node"
    return f"{len(run.points)} {what}{'s' if len(run.points) > 1 else ''}, all finite"
