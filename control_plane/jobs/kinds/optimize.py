"""`optimize`: makes one variant of a version, measures it against its parent, and registers it.

A variant that is rejected is registered too, marked: its numbers are worth keeping, and it cannot be promoted
without a waiver.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from control_plane.domain.optimization import TrialState
from control_plane.domain.optimization_orders import OPTIMIZE, OptimizeOrder
from control_plane.domain.views import Reason
from control_plane.jobs.base import JobFailedError, Progress
from control_plane.jobs.bench import Bench, Task, TrialFailedError
from control_plane.optimization import catalog, estimates
from control_plane.services import (
    optimization_figures,
    optimization_folders,
    optimization_subjects,
    optimization_trials,
)
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob
from control_plane.services.optimization_trials import Idea, Trial

NUMBER: Final = 1
"""Of its only trial."""
BUILD: Final = 0.02
REGISTER: Final = 0.97
"""Shares of the work that are done when these stages begin."""
BUILD_TIMEOUT_S: Final = 4 * 3600.0


class Optimize:
    """Parameters: `OptimizeOrder`. Result: the variant (`optimization_figures.variant`) and its reasons."""

    name = OPTIMIZE
    title = "Optimise a version"
    submittable = False
    description = "Makes one variant of a version, measures it against its parent, and registers it."

    def run(self, ctx: Context, job: ClaimedJob, progress: Progress) -> Mapping[str, Any]:
        """Build, measure, decide, register. Raises JobFailedError where there is no variant."""
        order = msgspec.convert(job.params, OptimizeOrder)
        if not _is_registered(ctx, job.id):
            bench = _bench(ctx, job, order)
            if bench.begin():
                optimization_trials.begin_anew(ctx, job.id)
                optimization_trials.add(ctx, job.id, [Idea(order.method, order.params)])
            try:
                _make(ctx, job, order, bench, progress)
            except TrialFailedError as failure:
                optimization_trials.failed(ctx, job.id, NUMBER, failure.reason)
                raise JobFailedError(failure.reason) from failure
        optimization_folders.remove(ctx.settings, job.id)
        return optimization_figures.variant(_trial(ctx, job.id), None)

    def ended(self, ctx: Context, params: Mapping[str, Any], reason: Reason | None) -> None:
        """Leave no file behind, and no trial that seems to go on."""
        job_id = str(params["job_id"])
        optimization_trials.settle(ctx, job_id, reason)
        optimization_folders.remove(ctx.settings, job_id)


def _bench(ctx: Context, job: ClaimedJob, order: OptimizeOrder) -> Bench:
    task = Task(
        job_id=job.id,
        actor=job.created_by,
        conditions=order.conditions,
        budget=order.budget,
        calibration=order.calibration,
    )
    return Bench(ctx, optimization_subjects.workable(ctx, order.ref), task)


def _make(ctx: Context, job: ClaimedJob, order: OptimizeOrder, bench: Bench, progress: Progress) -> None:
    """Take the trial on from where it is."""
    progress("read rows", 0.0)
    bench.prepare()
    size_bytes = optimization_subjects.known(ctx, order.ref).size_bytes
    build_s = estimates.build_s(estimates.scaled(catalog.get(order.method).cost_s, size_bytes))
    measuring_s = estimates.measuring_s(order.conditions)
    measure_at = BUILD + (REGISTER - BUILD) * build_s / (build_s + measuring_s)
    if _trial(ctx, job.id).state != TrialState.MEASURED:
        optimization_trials.building(ctx, job.id, NUMBER, "build")
        reply = bench.build(
            _trial(ctx, job.id), _ticking(progress, "build", BUILD, measure_at, build_s), BUILD_TIMEOUT_S
        )
        optimization_trials.stage(ctx, job.id, NUMBER, "measure")
        span = REGISTER - measure_at
        report = bench.measure(
            _trial(ctx, job.id), reply, lambda done: progress("measure", measure_at + span * done)
        )
        bench.judge(_trial(ctx, job.id), report)
    progress("register", REGISTER)
    bench.register(_trial(ctx, job.id), by_job=job.id)


def _ticking(progress: Progress, stage: str, start: float, end: float, usual_s: float) -> Callable[[], None]:
    """A beat for a stage that cannot say how far it is: it comes nearer to *end* as time passes."""
    began = time.monotonic()

    def beat() -> None:
        done = 1 - math.exp(-(time.monotonic() - began) / max(1.0, usual_s))
        progress(stage, start + (end - start) * done)

    return beat


def _trial(ctx: Context, job_id: str) -> Trial:
    return optimization_trials.journal(ctx, job_id)[-1]


def _is_registered(ctx: Context, job_id: str) -> bool:
    """Whether an earlier start came to the end and was killed before it said so."""
    journal = optimization_trials.journal(ctx, job_id)
    return bool(journal) and journal[-1].version_ref is not None


KIND: Final = Optimize()
