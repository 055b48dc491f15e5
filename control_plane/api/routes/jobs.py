"""Routes of jobs."""

from __future__ import annotations

from fastapi import APIRouter, Response

from control_plane.api.caller import Actor, Ctx, Lines, PageNumber, PageSize
from control_plane.api.encoding import Json
from control_plane.api.schemas import JobBody
from control_plane.services import jobs

router = APIRouter(tags=["jobs"])


@router.post("/jobs", status_code=201)
def submit_job(ctx: Ctx, actor: Actor, body: JobBody) -> Response:
    """Queue a job."""
    subject = body.subject or body.kind
    return Json(
        jobs.submit(ctx, body.kind, subject=subject, params=body.params, actor=actor), status_code=201
    )


@router.get("/jobs")
def list_jobs(
    ctx: Ctx,
    state: str | None = None,
    kind: str | None = None,
    page: PageNumber = 1,
    page_size: PageSize = 50,
) -> Response:
    """Jobs newest first, one page."""
    return Json(jobs.search(ctx, state=state, kind=kind, page=page, page_size=page_size))


@router.get("/jobs/{job_id}")
def get_job(ctx: Ctx, job_id: str) -> Response:
    """One job."""
    return Json(jobs.get(ctx, job_id))


@router.get("/jobs/{job_id}/log")
def get_job_log(ctx: Ctx, job_id: str, lines: Lines = 200) -> Response:
    """The end of a job's log."""
    return Json({"lines": jobs.log(ctx, job_id, lines=lines)})


@router.post("/jobs/{job_id}/cancel")
def cancel_job(ctx: Ctx, actor: Actor, job_id: str) -> Response:
    """End a job."""
    return Json(jobs.cancel(ctx, job_id, actor=actor))


@router.post("/jobs/{job_id}/retry")
def retry_job(ctx: Ctx, actor: Actor, job_id: str) -> Response:
    """Queue a failed or cancelled job again."""
    return Json(jobs.retry(ctx, job_id, actor=actor))
