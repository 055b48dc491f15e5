"""Routes of endpoints and agents."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from control_plane.api.caller import Actor, Ctx, Lines, PageNumber, PageSize
from control_plane.api.encoding import Json
from control_plane.api.schemas import DeployBody, GoalBody, PredictBody, ScaleBody
from control_plane.services import endpoints

router = APIRouter(tags=["endpoints"])


@router.get("/endpoints")
def list_endpoints(ctx: Ctx) -> Response:
    """All endpoints by name."""
    return Json(endpoints.list_all(ctx))


@router.get("/endpoints/{name}")
def get_endpoint(ctx: Ctx, name: str) -> Response:
    """One endpoint with its agents."""
    return Json(endpoints.get(ctx, name))


@router.put("/endpoints/{name}")
def deploy(ctx: Ctx, actor: Actor, name: str, body: DeployBody) -> Response:
    """Create an endpoint, or have it serve another version or other settings."""
    deployed = endpoints.deploy(
        ctx,
        name,
        body.version,
        actor=actor,
        replicas=body.replicas,
        threads=body.threads,
        device=body.device,
        handler=body.handler,
        memory_bytes=body.memory_bytes,
        options=body.options.patch if body.options else None,
        expected_revision=body.expected_revision,
        waiver=body.waiver,
    )
    return Json(deployed)


@router.delete("/endpoints/{name}", status_code=202)
def delete_endpoint(ctx: Ctx, actor: Actor, name: str, expected_revision: int | None = None) -> Response:
    """Want the endpoint gone; it drains first."""
    endpoints.delete(ctx, name, actor=actor, expected_revision=expected_revision)
    return Response(status_code=202)


@router.post("/endpoints/{name}/scale")
def scale(ctx: Ctx, actor: Actor, name: str, body: ScaleBody) -> Response:
    """Want so many agents."""
    scaled = endpoints.scale(ctx, name, body.replicas, actor=actor, expected_revision=body.expected_revision)
    return Json(scaled)


@router.post("/endpoints/{name}/restart")
def restart(ctx: Ctx, actor: Actor, name: str, body: GoalBody | None = None) -> Response:
    """Replace every agent, new ones ready first."""
    return Json(endpoints.restart(ctx, name, actor=actor, expected_revision=_expected(body)))


@router.post("/endpoints/{name}/stop")
def stop(ctx: Ctx, actor: Actor, name: str, body: GoalBody | None = None) -> Response:
    """Want no agent."""
    return Json(endpoints.stop(ctx, name, actor=actor, expected_revision=_expected(body)))


@router.post("/endpoints/{name}/start")
def start(ctx: Ctx, actor: Actor, name: str, body: GoalBody | None = None) -> Response:
    """Want it running again."""
    return Json(endpoints.start(ctx, name, actor=actor, expected_revision=_expected(body)))


@router.post("/endpoints/{name}/predict")
def predict(ctx: Ctx, name: str, body: PredictBody) -> Response:
    """Ask through the gateway; the answer's own status stands in the body."""
    return Json(endpoints.predict(ctx, name, body.model_dump()))


@router.get("/endpoints/{name}/agents")
def list_agents(ctx: Ctx, name: str, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> Response:
    """Agents of the endpoint in any phase, newest first."""
    return Json(endpoints.agents(ctx, endpoint=name, limit=limit))


@router.get("/endpoints/{name}/history")
def get_history(ctx: Ctx, name: str, page: PageNumber = 1, page_size: PageSize = 50) -> Response:
    """What happened to the endpoint, newest first."""
    return Json(endpoints.history(ctx, name, page=page, page_size=page_size))


@router.get("/endpoints/{name}/signature")
def get_signature(ctx: Ctx, name: str) -> Response:
    """What clients of the endpoint send and get."""
    return Json(endpoints.signature(ctx, name))


@router.get("/agents/{agent_id}/log")
def get_agent_log(ctx: Ctx, agent_id: str, lines: Lines = 200) -> Response:
    """The end of an agent's log."""
    return Json({"lines": endpoints.agent_log(ctx, agent_id, lines=lines)})


def _expected(body: GoalBody | None) -> int | None:
    return body.expected_revision if body else None
