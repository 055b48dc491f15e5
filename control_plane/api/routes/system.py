"""Routes of the system as a whole: status, events, live data, catalogues, deployments files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from control_plane.api.caller import Actor, Ctx, PageNumber, PageSize
from control_plane.api.encoding import Json
from control_plane.api.schemas import ApplyBody
from control_plane.services import catalogs, declarative, deployments_export, events, live, system

router = APIRouter(tags=["system"])


@router.get("/status")
def get_status(ctx: Ctx) -> Response:
    """The whole system in a few figures."""
    return Json(system.status(ctx))


@router.get("/events")
def list_events(
    ctx: Ctx,
    q: str = "",
    subject: str | None = None,
    by: Annotated[str | None, Query(alias="actor")] = None,
    page: PageNumber = 1,
    page_size: PageSize = 50,
) -> Response:
    """Events newest first, one page; *actor* is who acted."""
    return Json(events.search(ctx, q=q, subject=subject, actor=by, page=page, page_size=page_size))


@router.get("/live")
def get_live(ctx: Ctx, range_s: int = 900, endpoint: str | None = None) -> Response:
    """Every live panel over the last *range_s* seconds."""
    content = live.bundle(ctx, range_s=range_s, endpoint=endpoint)
    return Response(content, media_type="application/json")


@router.get("/catalogs")
def get_catalogs(ctx: Ctx) -> Response:
    """What forms offer: handlers, formats, kinds of jobs."""
    return Json(
        {
            "handlers": catalogs.handlers(ctx),
            "formats": catalogs.formats(),
            "job_kinds": catalogs.job_kinds(),
        }
    )


@router.get("/deployments")
def get_deployments(ctx: Ctx) -> Response:
    """Every endpoint as a deployments file, the text `document`; applying it changes nothing."""
    return Json({"document": deployments_export.export(ctx)})


@router.post("/apply")
def apply(ctx: Ctx, actor: Actor, body: ApplyBody) -> Response:
    """Bring the endpoints to what a deployments file says, or say what that would change."""
    changes = declarative.apply(ctx, body.document, actor=actor, dry_run=body.dry_run)
    return Json({"changes": changes, "applied": not body.dry_run})
