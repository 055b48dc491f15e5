"""Jobs: submit, watch, cancel, retry; and what the worker's processes report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from control_plane.domain.details import check_details
from control_plane.domain.job import FINAL_STATES, ONE_AT_A_TIME, JobState, Lane, lane_of
from control_plane.domain.views import JobView, Page, Reason
from control_plane.errors import ConflictError, NotFoundError
from control_plane.registry import jobs
from control_plane.registry import session as sessions
from control_plane.registry.tables import Job, new_id
from control_plane.services import catalogs, events, log_files
from control_plane.services.context import Context
from control_plane.services.paging import offset

MAX_ATTEMPTS = 3
"""A job whose process died is run again until it was started so often."""
_WORKER = "worker"


class JobCancelled(Exception):  # noqa: N818  a signal to the job's own code, not an error
    """Somebody asked for this job to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedJob:
    """A job that the caller's process now works on."""

    id: str
    kind: str
    subject: str
    params: dict[str, Any]
    attempt: int
    created_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningJob:
    """A job and the process that works on it, by its row."""

    id: str
    kind: str
    pid: int | None
    pid_started_at: float | None
    started_at: float | None
    cancel_requested: bool


def submit(ctx: Context, kind: str, *, subject: str, params: Mapping[str, Any], actor: str) -> JobView:
    """Queue a job. Raises InvalidInputError for an unknown kind, listing the known ones."""
    catalogs.check_job_kind(kind)
    with sessions.write(ctx.engine) as session:
        return view(queue(session, kind, subject=subject, params=params, actor=actor))


def queue(
    session: Session,
    kind: str,
    *,
    subject: str,
    params: Mapping[str, Any],
    actor: str,
    job_id: str | None = None,
) -> Job:
    """`submit` within the transaction of *session*, for a kind that is known to exist.

    job_id: its id, where something was named after it before; a new one without.
    """
    job = Job(
        id=job_id or new_id(),
        kind=kind,
        subject=subject,
        params=check_details(params),
        state=JobState.QUEUED,
        stage="",
        progress=0.0,
        cancel_requested=False,
        attempt=0,
        created_by=actor,
        created_at=time.time(),
    )
    session.add(job)
    session.flush()
    _record(session, job, actor, "job.submitted", f"{actor} submitted {kind} of {subject}")
    return job


def get(ctx: Context, job_id: str) -> JobView:
    """One job. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        return _placed(session, _found(session.get(Job, job_id), job_id))


def search(
    ctx: Context,
    *,
    state: str | None = None,
    kind: str | None = None,
    page: int = 1,
    page_size: int = 50,
) -> Page[JobView]:
    """Jobs newest first."""
    start = offset(page, page_size)
    with sessions.read(ctx.engine) as session:
        rows, total = jobs.page(session, state=state, kind=kind, offset=start, limit=page_size)
        return Page(tuple(_placed(session, row) for row in rows), total, page, page_size)


def cancel(ctx: Context, job_id: str, *, actor: str) -> JobView:
    """End a job: at once when queued, at its next report when running.

    Idempotent; a finished one is a conflict.
    """
    with sessions.write(ctx.engine) as session:
        job = _locked(session, job_id)
        if job.state == JobState.CANCELLED:
            return view(job)
        if job.state in FINAL_STATES:
            raise ConflictError(f"The job has already {job.state}")
        request_cancel(session, job, actor=actor)
        return view(job)


def request_cancel(session: Session, job: Job, *, actor: str) -> None:
    """`cancel` of an unfinished job within the transaction of *session*."""
    if job.cancel_requested:
        return
    job.cancel_requested = True
    _record(session, job, actor, "job.cancelled", f"{actor} cancelled {job.kind} of {job.subject}")
    if job.state == JobState.QUEUED:
        _end(job, JobState.CANCELLED)


def retry(ctx: Context, job_id: str, *, actor: str) -> JobView:
    """Queue a failed or cancelled job again, with the same parameters. Others are a ConflictError."""
    with sessions.write(ctx.engine) as session:
        job = _locked(session, job_id)
        if job.state not in (JobState.FAILED, JobState.CANCELLED):
            raise ConflictError(f"The job is {job.state}; only failed and cancelled jobs can be retried")
        _requeue(job)
        job.attempt, job.cancel_requested = 0, False
        _record(session, job, actor, "job.retried", f"{actor} retried {job.kind} of {job.subject}")
        return view(job)


def log(ctx: Context, job_id: str, *, lines: int = 200) -> tuple[str, ...]:
    """The last lines of the job's log, oldest first. Raises NotFoundError for an unknown job."""
    job = get(ctx, job_id)
    return log_files.tail(ctx.settings.logs_dir / "jobs" / f"{job.id}.log", lines)


def claim(ctx: Context, pid: int, pid_started_at: float, *, lane: Lane = Lane.MAIN) -> ClaimedJob | None:
    """Take the oldest queued job of *lane* for the process (pid, creation time); None when there is none.

    Two processes never get the same job, and no two jobs of a lane of its own run at the same time.
    """
    with sessions.write(ctx.engine) as session:
        if lane in ONE_AT_A_TIME:
            sessions.lock(session, f"jobs/{lane}")
        if _is_taken(session, lane):
            return None
        job = jobs.next_queued(session, **_of_lane(lane))
        if job is None:
            return None
        job.state, job.attempt = JobState.RUNNING, job.attempt + 1
        job.pid, job.pid_started_at, job.started_at = pid, pid_started_at, time.time()
        return ClaimedJob(
            id=job.id,
            kind=job.kind,
            subject=job.subject,
            params=job.params,
            attempt=job.attempt,
            created_by=job.created_by,
        )


def waits(ctx: Context, lane: Lane) -> bool:
    """Whether a job of *lane* is queued that could start now, as far as its lane is concerned."""
    with sessions.read(ctx.engine) as session:
        if _is_taken(session, lane):
            return False
        return jobs.is_queued(session, **_of_lane(lane))


def report(ctx: Context, job_id: str, stage: str, progress: float) -> None:
    """Say how far a running job is; progress: done share in [0, 1]. Raises JobCancelled when it must end."""
    with sessions.write(ctx.engine) as session:
        job = _running(session, job_id)
        if not job.cancel_requested:
            job.stage = stage
            job.progress = min(1.0, max(0.0, progress)) if math.isfinite(progress) else job.progress
        requested = job.cancel_requested
    if requested:
        raise JobCancelled(job_id)


def finish(ctx: Context, job_id: str, result: Mapping[str, Any]) -> None:
    """The job is done; *result* is plain JSON."""
    checked = check_details(result)
    with sessions.write(ctx.engine) as session:
        job = _running(session, job_id)
        job.result, job.progress = checked, 1.0
        _end(job, JobState.SUCCEEDED)
        _record(session, job, _WORKER, "job.succeeded", f"{job.kind} of {job.subject} succeeded")


def fail(ctx: Context, job_id: str, reason: Reason) -> None:
    """The job failed for *reason*."""
    with sessions.write(ctx.engine) as session:
        _fail(session, _running(session, job_id), reason)


def cancelled(ctx: Context, job_id: str) -> None:
    """The job has ended because it was asked to."""
    with sessions.write(ctx.engine) as session:
        _end(_running(session, job_id), JobState.CANCELLED)


def running(ctx: Context) -> tuple[RunningJob, ...]:
    """Jobs that some process works on, by their rows."""
    with sessions.read(ctx.engine) as session:
        return tuple(
            RunningJob(
                id=job.id,
                kind=job.kind,
                pid=job.pid,
                pid_started_at=job.pid_started_at,
                started_at=job.started_at,
                cancel_requested=job.cancel_requested,
            )
            for job in jobs.running(session)
        )


def recover_lost(
    ctx: Context, is_alive: Callable[[int, float], bool], *, counted: bool = True
) -> tuple[JobView, ...]:
    """Queue again every running job whose process is gone (at most MAX_ATTEMPTS starts, then it failed).

    is_alive: given pid and creation time, whether that very process exists. counted: False for processes that
    we ended ourselves, which is no fault of the job's. Returns the jobs that were lost.
    """
    with sessions.write(ctx.engine) as session:
        lost = [job for job in jobs.running(session) if not _is_alive(job, is_alive)]
        for job in lost:
            job.attempt -= 0 if counted else 1
            _recover(session, job)
        return tuple(view(job) for job in lost)


def view(job: Job) -> JobView:
    """*job* as services return it."""
    return JobView(
        id=job.id,
        kind=job.kind,
        subject=job.subject,
        state=job.state,
        stage=job.stage,
        progress=job.progress,
        time_left_s=_time_left_s(job, time.time()),
        result=job.result,
        reason=Reason(**job.error) if job.error else None,
        attempt=job.attempt,
        created_by=job.created_by,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        lane=lane_of(job.kind).value,
    )


def _placed(session: Session, job: Job) -> JobView:
    """`view` with the job's place in the queue."""
    if job.state != JobState.QUEUED:
        return view(job)
    place = jobs.ahead(session, job, **_of_lane(lane_of(job.kind)))
    return replace(view(job), ahead=place)


def _of_lane(lane: Lane) -> dict[str, Any]:
    """The kinds of a lane, as queries take them."""
    if lane in ONE_AT_A_TIME:
        return {"only": ONE_AT_A_TIME[lane]}
    return {"besides": tuple(kind for kinds in ONE_AT_A_TIME.values() for kind in kinds)}


def _is_taken(session: Session, lane: Lane) -> bool:
    """Whether a job of a lane that takes one at a time runs."""
    return lane in ONE_AT_A_TIME and bool(jobs.count_running(session, ONE_AT_A_TIME[lane]))


def _time_left_s(job: Job, now: float) -> float | None:
    if job.state != JobState.RUNNING or job.started_at is None or job.progress <= 0:
        return None
    return max(0.0, now - job.started_at) * (1 - job.progress) / job.progress


def _is_alive(job: Job, is_alive: Callable[[int, float], bool]) -> bool:
    return job.pid is not None and job.pid_started_at is not None and is_alive(job.pid, job.pid_started_at)


def _recover(session: Session, job: Job) -> None:
    if job.cancel_requested:
        _end(job, JobState.CANCELLED)
    elif job.attempt < MAX_ATTEMPTS:
        _requeue(job)
        _record(
            session, job, _WORKER, "job.lost", f"{job.kind} of {job.subject} lost its process; it runs again"
        )
    else:
        sentence = f"Its process died {job.attempt} times"
        _fail(session, job, Reason("process_died", sentence, "See the job's log, then retry it."))


def _fail(session: Session, job: Job, reason: Reason) -> None:
    job.error = asdict(reason)
    _end(job, JobState.FAILED)
    message = f"{job.kind} of {job.subject} failed: {reason.message}"
    _record(session, job, _WORKER, "job.failed", message, code=reason.code)


def _end(job: Job, state: JobState) -> None:
    job.state, job.finished_at = state, time.time()
    job.pid = job.pid_started_at = None


def _requeue(job: Job) -> None:
    job.state, job.stage, job.progress = JobState.QUEUED, "", 0.0
    job.error = job.result = job.pid = job.pid_started_at = job.started_at = job.finished_at = None


def _running(session: Session, job_id: str) -> Job:
    job = _locked(session, job_id)
    if job.state != JobState.RUNNING:
        raise ConflictError(f"Job {job_id} is {job.state}, not running")
    return job


def _locked(session: Session, job_id: str) -> Job:
    return _found(jobs.locked(session, job_id), job_id)


def _found(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise NotFoundError(f"There is no job {job_id[:80]!r}")
    return job


def _record(session: Session, job: Job, actor: str, action: str, message: str, **details: Any) -> None:
    events.record(
        session,
        at=time.time(),
        actor=actor,
        action=action,
        subject=f"job/{job.id}",
        message=message,
        kind=job.kind,
        **details,
    )
