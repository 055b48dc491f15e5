"""`gates`: what a started candidate must pass before any request reaches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from control_plane.domain.views import Reason
from control_plane.gates import catalog, reading
from control_plane.gates.asking import Asking
from control_plane.gates.base import Finding, Gate, Outcome
from control_plane.gates.scene import Scene
from control_plane.jobs.base import Progress
from control_plane.registry import gate_jobs
from control_plane.services import rollout_gates
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob

INTERRUPTED: Final = "it was stopped before it could say anything"


class Gates:
    """Parameters: {"rollout_id"}. Result: {"passed": bool, "failed": [names of gates]}.

    Every start begins anew: agents may be others by now, and what a gate says twice is the same.
    """

    name = gate_jobs.KIND
    title = "Gates before traffic"
    submittable = False
    description = "Checks a rollout's candidate against stable before any request reaches it."

    def run(self, ctx: Context, job: ClaimedJob, progress: Progress) -> Mapping[str, Any]:
        """Run the gates in order; what they say stands in the rollout's row as soon as it is known.

        Raises UnavailableError where stable does not answer, JobCancelled where the rollout moved on.
        """
        rollout_id = str(job.params["rollout_id"])
        waived = rollout_gates.waiver(ctx, rollout_id, job.id)
        told: list[dict[str, Any]] = []
        stopped: str | None = None
        scene: Scene | None = None
        every = catalog.gates()
        for at, gate in enumerate(every):
            share = at / len(every)
            progress(gate.title, share)
            finding = _unasked(gate, waived, stopped)
            if finding is None:
                rollout_gates.record(ctx, rollout_id, job.id, [*told, _row(gate, _RUNNING)])
                scene = _scene(ctx, rollout_id, scene)
                finding = _asked(gate, scene, partial(progress, gate.title, share))
            if finding.outcome is Outcome.FAILED and gate.decisive:
                stopped = gate.title
            told.append(_row(gate, finding))
            rollout_gates.record(ctx, rollout_id, job.id, told)
        failed = [each["name"] for each in told if each["outcome"] == Outcome.FAILED]
        return {"passed": not failed, "failed": failed}

    def ended(self, ctx: Context, params: Mapping[str, Any], reason: Reason | None) -> None:
        """Let no gate stand as running; the controller ends the rollout by the job's own state."""
        sentence = reason.message if reason is not None else INTERRUPTED
        rollout_gates.interrupted(ctx, str(params["rollout_id"]), sentence)


_RUNNING: Final = Finding(Outcome.RUNNING, "at work")


def _unasked(gate: Gate[Any], waived: str | None, stopped: str | None) -> Finding | None:
    """What is said of a gate that need not run."""
    if waived is not None and not gate.always:
        return Finding(Outcome.WAIVED, f"left out: {waived}")
    if stopped is not None:
        return Finding(Outcome.NOT_APPLICABLE, f"not run: the candidate fails at “{stopped}”")
    return None


def _scene(ctx: Context, rollout_id: str, before: Scene | None) -> Scene:
    """The scene with the agents of this moment; its golden items are read once."""
    return reading.scene(ctx, rollout_id) if before is None else reading.refreshed(ctx, rollout_id, before)


def _asked(gate: Gate[Any], scene: Scene, beat: Callable[[], None]) -> Finding:
    why_not = gate.inapplicable(scene)
    if why_not is not None:
        return Finding(Outcome.NOT_APPLICABLE, why_not)
    asking = Asking(scene.endpoint, beat)
    try:
        return gate.decide(gate.gather(scene, asking))
    finally:
        asking.close()


def _row(gate: Gate[Any], finding: Finding) -> dict[str, Any]:
    return {
        "name": gate.name,
        "title": gate.title,
        "outcome": finding.outcome.value,
        "sentence": finding.sentence,
        "figures": dict(finding.figures),
    }


KIND: Final = Gates()
