"""Routes of the debugger."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Response

from control_plane.api.caller import Actor, Ctx, PageNumber, PageSize
from control_plane.api.debugger_schemas import ChangeBody, DebugBody, NameBody
from control_plane.api.encoding import Json
from control_plane.domain import breakpoints, captured_values
from control_plane.domain.debugging import Side
from control_plane.errors import InvalidInputError
from control_plane.services import debugger

router = APIRouter(tags=["debugger"])
_RUN: Final = "/debug-runs/{run_id}"
OneSide = Annotated[Side, Query(description="`a`, or `b` for the version beside it.")]
Places = Annotated[str, Query(description="One number per dimension, e.g. `0,16`.", max_length=500)]


@router.get("/debug-runs")
def list_debug_runs(
    ctx: Ctx,
    q: str = "",
    saved: bool | None = None,  # noqa: FBT001  a query parameter
    page: PageNumber = 1,
    page_size: PageSize = 50,
) -> Response:
    """Runs newest first, one page."""
    return Json(debugger.search(ctx, q=q, saved=saved, page=page, page_size=page_size))


@router.post("/debug-runs", status_code=201)
def start_debug_run(ctx: Ctx, actor: Actor, body: DebugBody) -> Response:
    """Queue a run of a version, or of two side by side, on one input."""
    run = debugger.start(
        ctx,
        body.version,
        body.source,
        against=body.against,
        edits=body.wanted,
        name=body.name,
        actor=actor,
    )
    return Json(run, status_code=201)


@router.get("/debug-runs/inputs")
def list_debug_inputs(
    ctx: Ctx, version: Annotated[str, Query(description="`model@N` or `model@alias`.")]
) -> Response:
    """What a version can be debugged on."""
    return Json(debugger.choices(ctx, version))


@router.get("/debug-runs/captures")
def list_debug_captures(ctx: Ctx, endpoint: str) -> Response:
    """Requests that the endpoint's agents keep, newest first."""
    return Json(debugger.captures(ctx, endpoint))


@router.get("/debug-runs/disagreement")
def get_debug_disagreement(ctx: Ctx, rollout: str, disagreement: str) -> Response:
    """A request of a rollout's gallery, and the two versions that answered it differently."""
    return Json(debugger.disagreement(ctx, rollout, disagreement))


@router.get(_RUN)
def get_debug_run(ctx: Ctx, run_id: str) -> Response:
    """One run with everything that was seen: stages, layers, statistics, comparison, tokens."""
    return Json(debugger.get(ctx, run_id))


@router.delete(_RUN, status_code=204)
def delete_debug_run(ctx: Ctx, actor: Actor, run_id: str) -> Response:
    """Delete a run; one that goes on is cancelled."""
    debugger.delete(ctx, run_id, actor=actor)
    return Response(status_code=204)


@router.put(_RUN + "/name")
def put_debug_run_name(ctx: Ctx, actor: Actor, run_id: str, body: NameBody) -> Response:
    """Name a run, which keeps it longer; an empty name takes it away again."""
    return Json(debugger.save(ctx, run_id, body.name, actor=actor))


@router.post(_RUN + "/edits", status_code=201)
def edit_debug_run(ctx: Ctx, actor: Actor, run_id: str, body: ChangeBody) -> Response:
    """Queue a run on the same input with more edits; without any it is run again."""
    return Json(debugger.edit(ctx, run_id, body.wanted, name=body.name, actor=actor), status_code=201)


@router.get(_RUN + "/values")
def get_debug_values(
    ctx: Ctx,
    run_id: str,
    point: Annotated[str, Query(description="Id of a layer or node, or a stage's name.")],
    side: OneSide = "a",
    tensor: Annotated[str, Query(description="Its place among the point's tensors, or its name.")] = "0",
    start: Places = "",
    stop: Places = "",
) -> Response:
    """A part of one kept tensor; NaN and infinities are written as words."""
    found = debugger.values(
        ctx,
        run_id,
        side,
        point,
        int(tensor) if tensor.isascii() and tensor.isdecimal() and len(tensor) < 10 else tensor,
        start=_places("start", start),
        stop=_places("stop", stop),
    )
    return Json(replace(found, values=_spelled(found.values)))


@router.get(_RUN + "/find")
def find_debug_point(
    ctx: Ctx,
    run_id: str,
    condition: Annotated[str, Query(description=f"A breakpoint: {breakpoints.FORMS}.")],
    side: OneSide = "a",
    after: Annotated[int, Query(ge=-1, description="Place of the point to go on behind.")] = -1,
) -> Response:
    """Place of the next point that meets a condition; null where there is none."""
    return Json({"place": debugger.find(ctx, run_id, side, breakpoints.parse(condition), after=after)})


@router.get(_RUN + "/export")
def export_debug_run(ctx: Ctx, run_id: str, form: Literal["json", "html"] = "json") -> Response:
    """The run as one file: JSON, or an HTML page that needs nothing else."""
    if form == "html":
        return _file(debugger.export_html(ctx, run_id), "text/html; charset=utf-8", f"{run_id}.html")
    return _file(debugger.export_json(ctx, run_id), "application/json", f"{run_id}.json")


def _file(content: str | bytes, media_type: str, name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="debug-run-{name}"'}
    return Response(content, media_type=media_type, headers=headers)


def _places(what: str, text: str) -> tuple[int, ...]:
    places = [each.strip() for each in text.split(",")] if text.strip() else []
    if any(not (each.isascii() and each.isdecimal() and len(each) < 16) for each in places):
        raise InvalidInputError(f"{what} holds one whole number per dimension, e.g. 0,16")
    return tuple(map(int, places))


def _spelled(values: Any) -> Any:
    """Nested lists with words for what JSON has no numbers for."""
    if isinstance(values, list):
        return [_spelled(each) for each in values]
    return captured_values.spelled(values) if isinstance(values, float) else values
