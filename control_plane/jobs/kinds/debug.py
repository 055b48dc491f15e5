"""`debug`: inspects a version, or two, on one input, and works out where they come apart."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from control_plane.debugging import comparing, kept, language, served, summary
from control_plane.debugging.comparing import Inspected
from control_plane.debugging.kept import NotKeptError
from control_plane.domain.debugging import DEBUG, DebugOrder
from control_plane.domain.divergence import Comparison
from control_plane.domain.views import Reason
from control_plane.errors import SignalboxError
from control_plane.jobs import inspecting, limits
from control_plane.jobs.base import JobFailedError, Progress
from control_plane.jobs.inspecting import NotInspectedError
from control_plane.services import debug_folders, debug_records, optimization_subjects
from control_plane.services.context import Context
from control_plane.services.debug_folders import SideState
from control_plane.services.debug_records import Plan
from control_plane.services.jobs import ClaimedJob, JobCancelled
from serving_agent.contract.capture import CapturedTensor
from serving_agent.contract.inspection import Edit, InspectionOrder

COMPARE: Final = 0.95
"""Share of the work that is done when both sides are inspected."""
SHORTER: Final = "Run it on a shorter input: every call of a layer is recorded."


class Debug:
    """Parameters: `DebugOrder`. Result: {"run", "summary"}."""

    name = DEBUG
    title = "Inspect a version"
    submittable = False
    description = "Runs one input through a version, or two, and keeps what every layer made of it."

    def run(self, ctx: Context, job: ClaimedJob, progress: Progress) -> Mapping[str, Any]:
        """Inspect every side and compare them. Raises JobFailedError where there is nothing to show."""
        order = msgspec.convert(job.params, DebugOrder)
        progress("read the input", 0.0)
        plan = debug_records.plan(ctx, order.run_id)
        try:
            told = _Work(ctx, order.run_id, plan, progress).do()
        except FileNotFoundError:
            if debug_records.exists(ctx, order.run_id):
                raise
            raise JobCancelled(job.id) from None  # somebody deleted it: its folder is gone under us
        return {"run": order.run_id, "summary": told}

    def ended(self, ctx: Context, params: Mapping[str, Any], reason: Reason | None) -> None:
        """Leave no half of a side, and nothing of a run that was deleted."""
        run_id = str(params["run_id"])
        if not debug_records.exists(ctx, run_id):
            debug_folders.remove(ctx.settings, run_id)
            return
        folder = debug_folders.of_run(ctx.settings, run_id)
        if reason is None or not (folder / "a" / debug_folders.SIDE).exists():
            debug_folders.clear(folder)
        debug_records.inspected(
            ctx,
            run_id,
            summary=reason.message if reason is not None else "cancelled",
            size_bytes=debug_folders.size_of(folder),
        )


class _Work:
    """One run under way."""

    def __init__(self, ctx: Context, run_id: str, plan: Plan, progress: Progress) -> None:
        self._ctx, self._run_id, self._plan, self._progress = ctx, run_id, plan, progress
        self._folder = debug_folders.of_run(ctx.settings, run_id)
        self._problems: dict[str, Reason] = {}
        self._seen: dict[str, Inspected] = {}

    def do(self) -> str:
        """Everything; what came of it in one sentence."""
        given = debug_folders.read_inputs(self._ctx.settings, self._run_id)
        debug_folders.clear(self._folder)
        sides = self._plan.sides()
        for at, (side, ref, edits) in enumerate(sides):
            start, end = COMPARE * at / len(sides), COMPARE * (at + 1) / len(sides)
            self._inspect(side, ref, edits, given, (start, end))
        if len(self._problems) == len(sides):
            raise JobFailedError(self._problems["a"])
        self._progress("compare", COMPARE)
        told = self._work_out()
        size = debug_folders.size_of(self._folder)
        if not debug_records.inspected(self._ctx, self._run_id, summary=told, size_bytes=size):
            debug_folders.remove(self._ctx.settings, self._run_id)
            raise JobCancelled(self._run_id)
        debug_folders.make_room(self._ctx, keep=self._run_id)
        return told

    def _inspect(
        self,
        side: str,
        ref: str,
        edits: tuple[Edit, ...],
        given: tuple[CapturedTensor, ...],
        span: tuple[float, float],
    ) -> None:
        """Inspect one side and leave its `side.json`; what stops it becomes the side's problem."""
        stage, (start, end) = f"inspect {ref}", span
        self._progress(stage, start)
        out = self._folder / side
        out.mkdir(mode=0o700)
        problem: Reason | None = None
        try:
            inspecting.inspect(
                self._order(ref, edits, given, out),
                self._ctx.settings.child_environment(),
                lambda done: self._progress(stage, start + (end - start) * done),
                self._ctx.settings.debug_timeout_s,
            )
            self._seen[side] = Inspected(kept.read_run(out), out)
        except NotInspectedError as error:
            problem = error.reason
        except NotKeptError as error:
            problem = Reason("inspection_failed", f"{ref} cannot be shown: {error}", SHORTER)
        except SignalboxError as error:
            problem = Reason(error.code, error.message, error.next_step)
        if problem is not None:
            self._problems[side] = problem
            shutil.rmtree(out)
            out.mkdir(mode=0o700)
        (out / debug_folders.SIDE).write_bytes(msgspec.json.encode(SideState(problem=problem)))

    def _order(
        self, ref: str, edits: tuple[Edit, ...], given: tuple[CapturedTensor, ...], out: Path
    ) -> InspectionOrder:
        found = optimization_subjects.workable(self._ctx, ref)
        settings = self._ctx.settings
        return InspectionOrder(
            folder=str(found.folder),
            format=found.format,
            handler=found.handler,
            signature=found.signature,
            labels=found.labels,
            allowed_handlers=settings.handlers,
            inputs=given,
            edits=edits,
            out=str(out),
            keep_bytes=settings.debug_run_bytes // len(self._plan.sides()),
            memory_bytes=limits.spare_bytes(settings.agent_memory),
        )

    def _work_out(self) -> str:
        """Write what can be worked out of what was seen; the run in one sentence."""
        a, b = self._seen.get("a"), self._seen.get("b")
        comparison: Comparison | None = None
        if a is not None and b is not None:
            comparison = comparing.compare(a, b, lambda: self._progress("compare", COMPARE))
            self._write(debug_folders.COMPARISON, comparison)
        tokens = None
        if a is not None:
            tokens = language.score(a, b, lambda: self._progress("score the tokens", COMPARE))
        if tokens is not None:
            self._write(debug_folders.TOKENS, tokens)
        answer = debug_folders.read_answer(self._ctx.settings, self._run_id)
        if a is not None and answer is not None and answer.by == self._plan.a:
            self._write(debug_folders.SERVED, served.compare(answer, a.run, a.folder))
        problem = next((reason.message for reason in self._problems.values()), "")
        beside = (self._plan.b, b.run) if self._plan.b and b is not None else None
        return summary.summed_up(self._plan.a, a.run if a is not None else None, problem, comparison, beside)

    def _write(self, name: str, found: msgspec.Struct) -> None:
        (self._folder / name).write_bytes(msgspec.json.encode(found))


KIND: Final = Debug()
