"""Routes of profiles."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import msgspec
from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from pydantic import Field, model_validator

from control_plane.api.caller import Actor, Ctx, PageNumber, PageSize
from control_plane.api.encoding import Json
from control_plane.api.schemas import Body
from control_plane.domain import profile as values
from control_plane.errors import InvalidInputError
from control_plane.services import profiling
from serving_agent.contract import profile as contract

router = APIRouter(tags=["profiles"])
_ONE = "/profiles/{profile_id}"
_DEFAULT = values.Wish()


class ProfileBody(Body):
    """POST of a profile. What is left out is as it usually is."""

    version: str | None = Field(None, description="`model@N` or `model@alias`; or an endpoint.")
    endpoint: str | None = Field(None, description="Endpoint whose serving agent is profiled.")
    name: str = Field("", description="Name for people.")
    requests: int | None = Field(
        None,
        description=f"Requests that each profiler sees, {_DEFAULT.requests} without; of an endpoint those "
        f"after which it ends, {values.LIVE.requests} without.",
    )
    seconds: float | None = Field(
        None,
        description=f"How long each profiler and batch size may take, {_DEFAULT.seconds:g} without; of an "
        f"endpoint all of it, {values.LIVE.seconds:g} without.",
    )
    batch: int | None = Field(None, description="Rows of one request, 1 without.")
    take: list[contract.Taken] | None = Field(None, description="What is taken, all without.")
    sweep: list[int] | None = Field(None, description="Batch sizes of the sweep, ascending.")
    input: Literal["examples", "random"] | None = Field(
        None, description="The version's examples, or made up by its signature."
    )
    threads: int | None = Field(None, description="CPU threads of one inference, 1 without.")
    rate_hz: int | None = Field(None, description="Samples a second, 100 without.")

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.version is None) == (self.endpoint is None):
            raise ValueError("name either a version or an endpoint")
        return self

    @property
    def wish(self) -> values.Wish:
        """As services take it. Raises InvalidInputError."""
        named = self.model_dump(exclude={"version", "endpoint", "name"}, exclude_none=True)
        base = values.LIVE if self.endpoint is not None else _DEFAULT
        try:
            return msgspec.convert({**msgspec.to_builtins(base), **named}, values.Wish)
        except msgspec.ValidationError as error:
            raise InvalidInputError(str(error)) from None


class ProfileNameBody(Body):
    """PATCH of a profile."""

    name: str = Field(description="Name for people; empty for none.")


@router.post("/profiles", status_code=201)
def take_profile(ctx: Ctx, actor: Actor, body: ProfileBody) -> Response:
    """Queue a profile of a version, or of a serving agent of an endpoint, which goes on serving."""
    if body.endpoint is not None:
        view = profiling.start_live(ctx, body.endpoint, body.wish, name=body.name, actor=actor)
    else:
        view = profiling.start(ctx, str(body.version), body.wish, name=body.name, actor=actor)
    return Json(view, status_code=201)


@router.get("/profiles")
def list_profiles(
    ctx: Ctx, q: str = "", version: str | None = None, page: PageNumber = 1, page_size: PageSize = 50
) -> Response:
    """Profiles newest first, one page; *q* is part of a name, version, endpoint or creator."""
    return Json(profiling.search(ctx, q=q, ref=version, page=page, page_size=page_size))


@router.get("/profiles/compare")
def compare_profiles(
    ctx: Ctx,
    a: Annotated[str, Query(description="Id of a profile.")],
    b: Annotated[str, Query(description="Id of the one compared with it.")],
) -> Response:
    """How two profiles differ, thing by thing, in seconds of one request."""
    return Json(profiling.compare(ctx, a, b))


@router.get(_ONE)
def get_profile(ctx: Ctx, profile_id: str) -> Response:
    """One profile: where it is, its key figures, and what it says in plain words."""
    found = profiling.detail(ctx, profile_id)
    return Json({"profile": found.view, "summary": found.summary})


@router.patch(_ONE)
def rename_profile(ctx: Ctx, actor: Actor, profile_id: str, body: ProfileNameBody) -> Response:
    """Give a profile another name."""
    return Json(profiling.rename(ctx, profile_id, body.name, actor=actor))


@router.delete(_ONE, status_code=204)
def delete_profile(ctx: Ctx, actor: Actor, profile_id: str) -> Response:
    """Delete a profile and its files."""
    profiling.delete(ctx, profile_id, actor=actor)
    return Response(status_code=204)


@router.get(_ONE + "/report")
def get_profile_report(ctx: Ctx, profile_id: str) -> Response:
    """All that a profile found: stages, flames, layers, operators, functions, memory, sweep."""
    return Json(profiling.report(ctx, profile_id))


@router.get(_ONE + "/report.html")
def get_profile_page(ctx: Ctx, profile_id: str) -> Response:
    """A report as one HTML page that loads nothing."""
    return HTMLResponse(profiling.html(ctx, profile_id), headers=_attached(f"profile-{profile_id[:8]}.html"))


@router.get(_ONE + "/trace.json.gz")
def get_profile_trace(ctx: Ctx, profile_id: str) -> Response:
    """The trace of torch.profiler in Chrome's format, gzipped, for Perfetto."""
    path = profiling.file(ctx, profile_id, contract.TRACE)
    name = f"profile-{profile_id[:8]}.{contract.TRACE}"
    return FileResponse(path, media_type="application/gzip", headers=_attached(name))


@router.get(_ONE + "/speedscope.json")
def get_profile_speedscope(ctx: Ctx, profile_id: str) -> Response:
    """The profile in Speedscope's format."""
    path = profiling.file(ctx, profile_id, contract.SPEEDSCOPE)
    return FileResponse(path, media_type="application/json")


@router.get(_ONE + "/{table}.csv")
def get_profile_table(ctx: Ctx, profile_id: str, table: str) -> Response:
    """One table of a report as CSV: operators, functions, layers or sweep."""
    content = profiling.csv(ctx, profile_id, table)
    name = f"profile-{profile_id[:8]}-{table}.csv"
    return PlainTextResponse(content, media_type="text/csv", headers=_attached(name))


def _attached(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}
