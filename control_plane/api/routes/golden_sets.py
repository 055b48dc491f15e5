"""Routes of golden sets."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from pydantic import Field

from control_plane.api.caller import Actor, Ctx, PageNumber, PageSize
from control_plane.api.encoding import Json
from control_plane.api.schemas import Body
from control_plane.domain import golden
from control_plane.services import golden_sets

router = APIRouter(tags=["golden sets"])
_OF_MODEL = "/models/{model}/golden-sets"


class GoldenSetBody(Body):
    """POST of a golden set."""

    items: list[Any] = Field(
        min_length=1,
        max_length=golden.MAX_ITEMS,
        description='Items {"inputs": {…}, "label": "…"} or {"inputs": {…}, "outputs": {…}}: one row each.',
    )
    name: str | None = Field(None, description="Name for people; the start of the digest without one.")


@router.get("/golden-sets")
def list_golden_sets(
    ctx: Ctx, model: str | None = None, page: PageNumber = 1, page_size: PageSize = 50
) -> Response:
    """Golden sets newest first, one page."""
    return Json(golden_sets.search(ctx, model=model, page=page, page_size=page_size))


@router.post(_OF_MODEL, status_code=201)
def add_golden_set(ctx: Ctx, actor: Actor, model: str, body: GoldenSetBody) -> Response:
    """Add a golden set of up to 64 MiB to a model; the same content is kept once."""
    added = golden_sets.add(ctx, model, golden.items_of(body.items), name=body.name, actor=actor)
    return Json(added, status_code=201)


@router.get(_OF_MODEL + "/{digest}")
def get_golden_set(ctx: Ctx, model: str, digest: str) -> Response:
    """One golden set, by its digest or the start of it."""
    return Json(golden_sets.get(ctx, model, digest))


@router.get(_OF_MODEL + "/{digest}/items")
def list_golden_items(
    ctx: Ctx, model: str, digest: str, page: PageNumber = 1, page_size: PageSize = 50
) -> Response:
    """The items of a golden set, one page."""
    return Json(golden_sets.items(ctx, model, digest, page=page, page_size=page_size))
