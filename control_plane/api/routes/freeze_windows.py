"""Routes of freeze windows."""

from __future__ import annotations

from fastapi import APIRouter, Response

from control_plane.api.caller import Actor, Ctx
from control_plane.api.encoding import Json
from control_plane.api.rollout_schemas import FreezeBody
from control_plane.services import freeze_windows

router = APIRouter(tags=["freeze windows"])


@router.post("/freeze-windows", status_code=201)
def add_freeze_window(ctx: Ctx, actor: Actor, body: FreezeBody) -> Response:
    """Let nothing be promoted in a time, at one endpoint or at all."""
    added = freeze_windows.add(
        ctx,
        actor=actor,
        starts_at=body.starts_at,
        ends_at=body.ends_at,
        reason=body.reason,
        endpoint=body.endpoint,
        weekly=body.weekly,
    )
    return Json(added, status_code=201)


@router.get("/freeze-windows")
def list_freeze_windows(ctx: Ctx, endpoint: str | None = None) -> Response:
    """Every freeze window, the earliest first; *endpoint*: those that freeze it."""
    return Json(freeze_windows.list_all(ctx, endpoint=endpoint))


@router.delete("/freeze-windows/{window_id}", status_code=204)
def remove_freeze_window(ctx: Ctx, actor: Actor, window_id: str) -> Response:
    """Take a freeze window away."""
    freeze_windows.remove(ctx, window_id, actor=actor)
    return Response(status_code=204)
