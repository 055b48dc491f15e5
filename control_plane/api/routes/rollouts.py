"""Routes of rollouts, and of what endpoints ask of them."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from control_plane.api.caller import Actor, Ctx, PageNumber, PageSize
from control_plane.api.encoding import Json
from control_plane.api.rollout_schemas import CommandBody, ExtendBody, PolicyBody, SimulateBody, StartBody
from control_plane.services import rollout_policies, rollouts

router = APIRouter(tags=["rollouts"])


@router.post("/rollouts", status_code=201)
def start_rollout(ctx: Ctx, actor: Actor, body: StartBody) -> Response:
    """Begin to bring a version to an endpoint, beside what it serves."""
    started = rollouts.start(
        ctx,
        body.endpoint,
        body.candidate,
        actor=actor,
        approval=body.approval,
        auto_advance=body.auto_advance,
        supersede=body.supersede,
        skip_gates=body.skip_gates,
        break_freeze=body.break_freeze,
        expected_revision=body.expected_revision,
        warm_s=body.warm_s,
        waiver=body.waiver,
        **body.wish,
    )
    return Json(started, status_code=201)


@router.get("/rollouts")
def list_rollouts(
    ctx: Ctx,
    endpoint: str | None = None,
    state: Annotated[list[str] | None, Query()] = None,
    page: PageNumber = 1,
    page_size: PageSize = 50,
) -> Response:
    """Rollouts newest first, one page; *state* may be named several times."""
    return Json(rollouts.list_all(ctx, endpoint=endpoint, states=state or (), page=page, page_size=page_size))


@router.post("/rollouts/simulate")
def simulate_rollout(ctx: Ctx, body: SimulateBody) -> Response:
    """Say what a plan is to be expected to do, before it runs."""
    predicted = rollouts.simulate(
        ctx,
        body.endpoint,
        rate=body.rate,
        error_rate=body.error_rate,
        p50_s=body.p50_s,
        p95_s=body.p95_s,
        **body.wish,
    )
    return Json(predicted)


@router.get("/rollouts/{rollout}")
def get_rollout(ctx: Ctx, rollout: str) -> Response:
    """One rollout, by its id, or by its endpoint's name for the newest."""
    return Json(rollouts.get(ctx, rollout))


@router.get("/rollouts/{rollout}/events")
def list_rollout_events(ctx: Ctx, rollout: str, page: PageNumber = 1, page_size: PageSize = 50) -> Response:
    """What happened to one rollout, newest first."""
    return Json(rollouts.history(ctx, rollout, page=page, page_size=page_size))


@router.get("/rollouts/{rollout}/disagreements")
def list_disagreements(ctx: Ctx, rollout: str, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> Response:
    """Requests that both versions answered differently, the farthest apart first."""
    return Json(rollouts.disagreements(ctx, rollout, limit=limit))


@router.get("/rollouts/{rollout}/report")
def get_rollout_report(
    ctx: Ctx, rollout: str, form: Annotated[Literal["json", "md"], Query(alias="format")] = "json"
) -> Response:
    """Who did what when, and all the evidence; *format* is json or md."""
    if form == "md":
        return Response(rollouts.report(ctx, rollout, "markdown"), media_type="text/markdown; charset=utf-8")
    return Json(rollouts.report_data(ctx, rollout))


@router.post("/rollouts/{rollout}/extend")
def extend_rollout(ctx: Ctx, actor: Actor, rollout: str, body: ExtendBody) -> Response:
    """Let the present step bake longer."""
    extended = rollouts.extend_bake(
        ctx,
        rollout,
        body.seconds,
        actor=actor,
        expected_step=body.expected_step,
        expected_revision=body.expected_revision,
    )
    return Json(extended)


@router.post("/rollouts/{rollout}/{command}")
def command_rollout(
    ctx: Ctx, actor: Actor, rollout: str, command: str, body: CommandBody | None = None
) -> Response:
    """Give it a command: approve, promote, promote-full, hold, resume, abort or rollback."""
    given = body or CommandBody()
    done = rollouts.act(
        ctx,
        rollout,
        command,
        actor=actor,
        reason=given.reason,
        expected_step=given.expected_step,
        expected_revision=given.expected_revision,
    )
    return Json(done)


@router.get("/endpoints/{name}/rollout")
def get_endpoint_rollout(ctx: Ctx, name: str) -> Response:
    """The endpoint's newest rollout."""
    return Json(rollouts.of_endpoint(ctx, name))


@router.get("/endpoints/{name}/rollout-policy")
def get_rollout_policy(ctx: Ctx, name: str) -> Response:
    """What the endpoint asks of every rollout."""
    return Json(rollout_policies.get(ctx, name))


@router.put("/endpoints/{name}/rollout-policy")
def put_rollout_policy(ctx: Ctx, actor: Actor, name: str, body: PolicyBody) -> Response:
    """Set what the endpoint asks of every rollout, as a whole."""
    return Json(rollout_policies.put(ctx, name, body.policy, actor=actor))
