"""Routes of the optimisation lab."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from control_plane.api.caller import Actor, Ctx
from control_plane.api.encoding import Json
from control_plane.api.optimization_schemas import AutotuneBody, OptimizeBody
from control_plane.domain import calibration
from control_plane.errors import TooLargeError
from control_plane.services import optimization

router = APIRouter(tags=["optimization"])
Version = Annotated[str, Query(description="`model@N` or `model@alias`.")]
_TRIAL: Final = "/jobs/{job_id}/trials/{number}"


@router.get("/optimization/methods")
def list_methods(ctx: Ctx, version: Version) -> Response:
    """What can be tried on a version: methods with their parameters, calibration rows, rows to compare on."""
    return Json(optimization.lab(ctx, version))


@router.post("/optimization/calibration", status_code=201)
async def add_calibration(ctx: Ctx, actor: Actor, request: Request, version: Version) -> Response:
    """Send rows to calibrate variants of a version with, as the raw body: JSON, JSON Lines or .npz."""
    content = await _bounded(request)
    kept = await run_in_threadpool(optimization.add_calibration, ctx, version, content, actor=actor)
    return Json(kept, status_code=201)


@router.post("/optimization/jobs", status_code=201)
def optimize(ctx: Ctx, actor: Actor, body: OptimizeBody) -> Response:
    """Queue a job that makes one variant, measures it against its parent, and registers it."""
    job = optimization.submit(ctx, body.version, body.method, body.params, actor=actor, **body.wish)
    return Json(job, status_code=201)


@router.post("/optimization/autotune", status_code=201)
def autotune(ctx: Ctx, actor: Actor, body: AutotuneBody) -> Response:
    """Queue a job that searches for some minutes and registers the best variant."""
    job = optimization.autotune(
        ctx, body.version, body.objective, minutes=body.minutes, actor=actor, **body.wish
    )
    return Json(job, status_code=201)


@router.get("/jobs/{job_id}/search")
def get_search(ctx: Ctx, job_id: str) -> Response:
    """What an autotune job is asked for, how far it is, and its best trials."""
    return Json(optimization.search_of(ctx, job_id))


@router.get("/jobs/{job_id}/trials")
def list_trials(ctx: Ctx, job_id: str) -> Response:
    """What an optimisation job tries, by number."""
    return Json(optimization.trials(ctx, job_id))


@router.get(_TRIAL)
def get_trial(ctx: Ctx, job_id: str, number: int) -> Response:
    """One trial with its report."""
    return Json(optimization.trial(ctx, job_id, number))


@router.post(_TRIAL + "/register", status_code=202)
def register_trial(ctx: Ctx, actor: Actor, job_id: str, number: int) -> Response:
    """Have a measured trial registered as a version; answers with the job that does it."""
    return Json(optimization.register_trial(ctx, job_id, number, actor=actor), status_code=202)


async def _bounded(request: Request) -> bytes:
    """The whole body. Raises TooLargeError."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > calibration.MAX_BYTES:
            raise TooLargeError(f"calibration rows may have {calibration.MAX_BYTES // 1024**2} MiB at most")
    return bytes(content)
