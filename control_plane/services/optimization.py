"""The optimisation lab as people use it: what can be tried on a version, jobs that try it, their trials."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from pydantic import ValidationError
from sqlalchemy.orm import Session

from control_plane.domain.job import JobState
from control_plane.domain.optimization import Budget, Conditions, Objective, TrialState
from control_plane.domain.optimization_orders import (
    AUTOTUNE,
    MAX_MINUTES,
    MIN_MINUTES,
    OPTIMIZE,
    REGISTER,
    AutotuneOrder,
    OptimizeOrder,
    RegisterOrder,
)
from control_plane.domain.optimization_views import (
    CalibrationView,
    CalibrationWish,
    LabView,
    MethodView,
    SearchView,
    TrialView,
)
from control_plane.domain.views import JobView
from control_plane.errors import ConflictError, InvalidInputError, NotFoundError
from control_plane.optimization import catalog, estimates, machine
from control_plane.optimization.base import Method, Params, Subject
from control_plane.registry import optimization_trials
from control_plane.registry import session as sessions
from control_plane.registry.tables import Job, new_id
from control_plane.services import (
    events,
    jobs,
    optimization_figures,
    optimization_folders,
    optimization_rows,
    optimization_subjects,
)
from control_plane.services.context import Context
from control_plane.services.optimization_subjects import Known

EXAMPLES: Final = CalibrationWish(source=optimization_rows.EXAMPLES)
PAST: Final = 20
"""Latest variants of a method that its estimate rests on."""
_LIVE: Final = (JobState.QUEUED, JobState.RUNNING)
_LISTED: Final = "See `signalbox optimize MODEL@N --list` for what applies."


def lab(ctx: Context, ref: str) -> LabView:
    """All that a form for *ref*, `model@N` or `model@alias`, needs. Raises NotFoundError."""
    found = optimization_subjects.known(ctx, ref)
    on = machine.this_machine()
    return LabView(
        ref=found.ref,
        methods=_methods(ctx, optimization_subjects.subject(found, on)),
        calibrations=optimization_rows.choices(ctx, found),
        holdout=optimization_rows.holdout(ctx, found).view(),
        machine=machine.described(on),
    )


def methods(ctx: Context, ref: str) -> tuple[MethodView, ...]:
    """Every method of the catalogue and what it means for *ref*. Raises NotFoundError."""
    return _methods(ctx, optimization_subjects.subject(optimization_subjects.known(ctx, ref)))


def add_calibration(ctx: Context, ref: str, content: bytes, *, actor: str) -> CalibrationView:
    """Keep rows to calibrate variants of *ref* with: JSON, JSON Lines or .npz (`domain.calibration`).

    The same rows are kept once. Raises NotFoundError, InvalidInputError naming the row and the input that do
    not fit, TooLargeError, NoSpaceError.
    """
    found = optimization_subjects.known(ctx, ref)
    kept = optimization_rows.add(ctx, found, content)
    with sessions.write(ctx.engine) as session:
        events.record(
            session,
            at=time.time(),
            actor=actor,
            action="calibration.added",
            subject=found.ref,
            message=f"{actor} added {kept.rows} rows to calibrate variants of {found.ref} with",
            digest=kept.digest,
        )
    return kept


def submit(
    ctx: Context,
    ref: str,
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    calibration: CalibrationWish | None = None,
    conditions: Conditions | None = None,
    budget: Budget | None = None,
    actor: str,
) -> JobView:
    """Queue a job that makes, measures and registers one variant of *ref*.

    calibration: which rows calibrate; a method that needs some takes the version's examples without it.
    Raises NotFoundError, InvalidInputError for parameters or rows that do not fit, ConflictError where the
    method does not apply.
    """
    found = optimization_subjects.workable(ctx, ref)
    chosen = catalog.get(method)
    order = OptimizeOrder(
        job_id=new_id(),
        ref=found.ref,
        method=chosen.name,
        params=checked_params(chosen, params or {}).model_dump(mode="json"),
        calibration=_calibration(ctx, found, chosen, calibration),
        conditions=conditions or Conditions(),
        budget=budget or Budget(),
    )
    _check_applies(chosen, optimization_subjects.subject(found))
    return _queue(ctx, OPTIMIZE, f"{found.ref} by {chosen.name}", order, actor)


def autotune(
    ctx: Context,
    ref: str,
    objective: str = Objective.LATENCY,
    *,
    minutes: float = 10.0,
    budget: Budget | None = None,
    conditions: Conditions | None = None,
    calibration: CalibrationWish | None = None,
    actor: str,
) -> JobView:
    """Queue a job that tries what applies to *ref* for so many minutes, and registers the best variant.

    calibration: which rows calibrate; without it the version's examples, and where it has none, methods that
    need calibration are left out. Raises NotFoundError, InvalidInputError, ConflictError where no method
    helps.
    """
    found = optimization_subjects.workable(ctx, ref)
    if not (math.isfinite(minutes) and MIN_MINUTES <= minutes <= MAX_MINUTES):
        raise InvalidInputError(f"minutes must be from {MIN_MINUTES:g} to {MAX_MINUTES:g}")
    subject = optimization_subjects.subject(found)
    rows = _search_calibration(ctx, found, subject, calibration)
    aim = _objective(objective)
    if not helpful(subject, aim, calibrated=rows is not None):
        raise ConflictError(f"no method that applies to {found.ref} helps its {aim}", next_step=_LISTED)
    order = AutotuneOrder(
        job_id=new_id(),
        ref=found.ref,
        objective=aim,
        minutes=minutes,
        calibration=rows,
        conditions=conditions or Conditions(),
        budget=budget or Budget(),
    )
    return _queue(ctx, AUTOTUNE, f"{found.ref} for {order.objective}", order, actor)


def applicable(subject: Subject, *, calibrated: bool) -> tuple[Method, ...]:
    """Methods that apply, in the catalogue's order. calibrated: whether there are rows to calibrate with."""
    return tuple(
        method
        for method in catalog.methods()
        if (calibrated or not method.calibrated) and method.inapplicable(subject) is None
    )


def helpful(subject: Subject, objective: Objective, *, calibrated: bool) -> tuple[Method, ...]:
    """Methods that apply and have made something better by *objective*, in the catalogue's order."""
    return tuple(
        method for method in applicable(subject, calibrated=calibrated) if method.gains.of(objective) > 1
    )


def trials(ctx: Context, job_id: str) -> tuple[TrialView, ...]:
    """The job's trials by number; none for a job that tries nothing. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        job = _job(session, job_id)
        rows = optimization_trials.of_job(session, job.id)
        folder = optimization_folders.of_job(ctx.settings, job.id)
        return tuple(optimization_figures.trial_view(row, folder) for row in rows)


def trial(ctx: Context, job_id: str, number: int) -> TrialView:
    """One trial. Raises NotFoundError."""
    found = next((each for each in trials(ctx, job_id) if each.number == number), None)
    if found is None:
        raise NotFoundError(f"Job {job_id} has no trial {number}")
    return found


def search_of(ctx: Context, job_id: str) -> SearchView:
    """What an autotune job is asked for, and where it is. Raises NotFoundError for any other job."""
    with sessions.read(ctx.engine) as session:
        job = _job(session, job_id)
        if job.kind != AUTOTUNE:
            raise NotFoundError(f"Job {job_id} searches nothing: it is of kind {job.kind}")
        return optimization_figures.search_view(job, optimization_trials.of_job(session, job.id))


def register_trial(ctx: Context, job_id: str, number: int, *, actor: str) -> JobView:
    """Have a measured trial registered as a version; the job that does it.

    Idempotent: one that is registered already, or being so, returns the job that did or does it. Raises
    NotFoundError, and ConflictError where it was not measured or its artefact is gone.
    """
    with sessions.write(ctx.engine) as session:
        job = _job(session, job_id)
        row = optimization_trials.find(session, job.id, number, lock=True)
        if row is None:
            raise NotFoundError(f"Job {job_id} has no trial {number}")
        before = session.get(Job, row.registering_job_id) if row.registering_job_id else None
        if before is not None and (row.version_id is not None or before.state in _LIVE):
            return jobs.view(before)
        _check_registrable(ctx, job, row.number, row.state)
        order = RegisterOrder(job_id=job.id, number=number)
        subject = f"trial {number} of {job.subject}"
        queued = jobs.queue(
            session, REGISTER, subject=subject, params=msgspec.to_builtins(order), actor=actor
        )
        row.registering_job_id = queued.id
        return jobs.view(queued)


def checked_params(method: Method, given: Mapping[str, Any]) -> Params:
    """*given* as the method's parameters. Raises InvalidInputError naming every field that does not fit."""
    try:
        return method.params.model_validate(dict(given))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'parameters'}: {each['msg']}" for each in error.errors()
        )
        known = ", ".join(method.params.model_fields) or "none"
        raise InvalidInputError(
            f"{method.name} cannot be run with these parameters: {problems}",
            next_step=f"Its parameters are: {known}.",
        ) from None


def _methods(ctx: Context, subject: Subject) -> tuple[MethodView, ...]:
    with sessions.read(ctx.engine) as session:
        past = optimization_figures.past_builds(session, catalog.names(), each=PAST)
    return tuple(_method_view(method, subject, past.get(method.name, ())) for method in catalog.methods())


def _method_view(method: Method, subject: Subject, past: Sequence[tuple[float, int]]) -> MethodView:
    if past:
        build_s = estimates.from_past(past, subject.size_bytes)
        source = f"{len(past)} variants made here" if len(past) > 1 else "one variant made here"
    else:
        build_s = estimates.scaled(method.cost_s, subject.size_bytes)
        source = "the method's usual cost and the size of the version"
    return MethodView(
        name=method.name,
        title=method.title,
        description=method.description,
        params=method.params.model_json_schema(),
        calibrated=method.calibrated,
        inapplicable=method.inapplicable(subject),
        estimate_s=estimates.build_s(build_s) + estimates.measuring_s(Conditions()),
        estimated_from=source,
    )


def _check_applies(method: Method, subject: Subject) -> None:
    why_not = method.inapplicable(subject)
    if why_not is not None:
        raise ConflictError(f"{method.name} does not apply to {subject.ref}: {why_not}", next_step=_LISTED)


def _calibration(
    ctx: Context, found: Known, method: Method, wish: CalibrationWish | None
) -> CalibrationWish | None:
    """What calibrates: rows that were asked for are read and checked now, so that nobody waits for a no."""
    if not method.calibrated:
        if wish is not None:
            raise InvalidInputError(f"{method.name} is not calibrated", next_step="Leave the rows out.")
        return None
    optimization_rows.calibrating(ctx, found, wish or EXAMPLES)
    return wish or EXAMPLES


def _search_calibration(
    ctx: Context, found: Known, subject: Subject, wish: CalibrationWish | None
) -> CalibrationWish | None:
    """What calibrates; nothing where no method that applies needs it: then all examples are compared on."""
    is_needed = any(method.calibrated for method in applicable(subject, calibrated=True))
    if wish is None and not (is_needed and found.examples):
        return None
    optimization_rows.calibrating(ctx, found, wish or EXAMPLES)
    return wish or EXAMPLES


def _objective(name: str) -> Objective:
    try:
        return Objective(name)
    except ValueError:
        known = ", ".join(Objective)
        raise InvalidInputError(f"There is no objective {name[:40]!r}; known are {known}") from None


def _queue(
    ctx: Context, kind: str, subject: str, order: OptimizeOrder | AutotuneOrder, actor: str
) -> JobView:
    params = msgspec.to_builtins(order)
    with sessions.write(ctx.engine) as session:
        jobs.queue(session, kind, subject=subject, params=params, actor=actor, job_id=order.job_id)
    return jobs.get(ctx, order.job_id)


def _check_registrable(ctx: Context, job: Job, number: int, state: str) -> None:
    if state != TrialState.MEASURED:
        raise ConflictError(
            f"trial {number} is {state}: only what was measured in full is registered",
            next_step="Make it with `signalbox optimize`, which measures it in full.",
        )
    folder = optimization_folders.of_job(ctx.settings, job.id)
    if not optimization_folders.is_built(folder, number):
        raise ConflictError(
            f"the artefact of trial {number} is gone: it is kept for 7 days, and not after a job that failed",
            next_step="Make it again with `signalbox optimize` and the same parameters.",
        )


def _job(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise NotFoundError(f"There is no job {job_id[:80]!r}")
    return job
