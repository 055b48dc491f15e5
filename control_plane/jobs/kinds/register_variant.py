"""`register_variant`: makes a version of what a trial of autotune has built and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec

from control_plane.domain.optimization_orders import REGISTER, AutotuneOrder, RegisterOrder
from control_plane.domain.views import Reason
from control_plane.errors import NotFoundError
from control_plane.jobs import orders
from control_plane.jobs.base import JobFailedError, Progress
from control_plane.jobs.bench import Bench, Task, TrialFailedError
from control_plane.services import optimization_figures, optimization_subjects, optimization_trials
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob


class RegisterVariant:
    """Parameters: `RegisterOrder`. Result: the variant, with the version that it became."""

    name = REGISTER
    title = "Register a variant"
    submittable = False
    description = "Makes a version of a variant that an optimisation job has built and measured."

    def run(self, ctx: Context, job: ClaimedJob, progress: Progress) -> Mapping[str, Any]:
        """Register it, once however often this runs. Raises JobFailedError where its artefact is gone."""
        wanted = msgspec.convert(job.params, RegisterOrder)
        progress("register", 0.1)
        _, params, _ = orders.params(ctx, wanted.job_id)
        order = msgspec.convert(params, AutotuneOrder)
        journal = optimization_trials.journal(ctx, wanted.job_id)
        trial = next((each for each in journal if each.number == wanted.number), None)
        if trial is None:
            raise NotFoundError(f"Trial {wanted.number} of job {wanted.job_id} is gone")
        task = Task(
            job_id=wanted.job_id,
            actor=job.created_by,
            conditions=order.conditions,
            budget=order.budget,
            calibration=order.calibration,
        )
        bench = Bench(ctx, optimization_subjects.workable(ctx, order.ref), task)
        try:
            ref = bench.register(trial, by_job=job.id)
        except TrialFailedError as failure:
            raise JobFailedError(failure.reason) from failure
        return optimization_figures.variant(replace(trial, version_ref=ref), order.objective)

    def ended(self, ctx: Context, params: Mapping[str, Any], reason: Reason | None) -> None:
        """Nothing waits for it: it can be asked for again."""


KIND: Final = RegisterVariant()
