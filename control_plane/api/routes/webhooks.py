"""Routes of webhooks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from control_plane.api.caller import Actor, Ctx
from control_plane.api.encoding import Json
from control_plane.api.rollout_schemas import WebhookBody
from control_plane.services import webhooks

router = APIRouter(tags=["webhooks"])


@router.post("/webhooks", status_code=201)
def add_webhook(ctx: Ctx, actor: Actor, body: WebhookBody) -> Response:
    """Tell an address of rollouts' transitions; the answer holds the signing secret, this once."""
    return Json(webhooks.add(ctx, body.url, actor=actor, endpoint=body.endpoint), status_code=201)


@router.get("/webhooks")
def list_webhooks(ctx: Ctx) -> Response:
    """All webhooks, the oldest first, without their secrets."""
    return Json(webhooks.list_all(ctx))


@router.get("/webhooks/{webhook_id}/deliveries")
def list_deliveries(ctx: Ctx, webhook_id: str, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> Response:
    """The webhook's latest messages, newest first."""
    return Json(webhooks.deliveries(ctx, webhook_id, limit=limit))


@router.delete("/webhooks/{webhook_id}", status_code=204)
def remove_webhook(ctx: Ctx, actor: Actor, webhook_id: str) -> Response:
    """Tell an address nothing more."""
    webhooks.remove(ctx, webhook_id, actor=actor)
    return Response(status_code=204)
