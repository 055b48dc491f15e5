"""Routes of models, versions, tags and aliases."""

from __future__ import annotations

from fastapi import APIRouter, Response

from control_plane.api.caller import Actor, Ctx, PageNumber, PageSize
from control_plane.api.encoding import Json
from control_plane.api.schemas import AliasTarget, ArchiveChange, RejudgeBody, TagValue, VersionPair
from control_plane.services import comparison, lineage, manifests, rejudging, versions

router = APIRouter(tags=["versions"])
_ONE = "/models/{model}/versions/{which}"


@router.get("/models")
def list_models(ctx: Ctx, q: str = "", page: PageNumber = 1, page_size: PageSize = 50) -> Response:
    """Models by name, one page."""
    return Json(versions.models(ctx, q=q, page=page, page_size=page_size))


@router.get("/models/{model}")
def get_model(ctx: Ctx, model: str) -> Response:
    """One model."""
    return Json(versions.model(ctx, model))


@router.get("/versions")
def list_versions(
    ctx: Ctx,
    q: str = "",
    model: str | None = None,
    format: str | None = None,  # noqa: A002  the query parameter's name
    alias: str | None = None,
    archived: bool = False,  # noqa: FBT001  a query parameter
    page: PageNumber = 1,
    page_size: PageSize = 50,
) -> Response:
    """Versions newest first, one page."""
    found = versions.search(
        ctx, q=q, model=model, format=format, alias=alias, archived=archived, page=page, page_size=page_size
    )
    return Json(found)


@router.get("/versions/compare")
def compare_versions(ctx: Ctx, a: str, b: str) -> Response:
    """Two versions side by side: metadata, files, configuration, and weights once they were compared."""
    return Json(comparison.compare(ctx, a, b))


@router.post("/versions/compare", status_code=201)
def start_comparison(ctx: Ctx, actor: Actor, body: VersionPair) -> Response:
    """Have the weights of two versions compared, unless they are; the answer names the job."""
    comparison.start(ctx, body.a, body.b, actor=actor)
    return Json(comparison.compare(ctx, body.a, body.b), status_code=201)


@router.post("/versions/rejudge", status_code=201)
def rejudge_versions(ctx: Ctx, actor: Actor, body: RejudgeBody) -> Response:
    """Have stored versions judged again by the present gate: those due, or all."""
    return Json(rejudging.queue(ctx, every=body.every, actor=actor), status_code=201)


@router.get(_ONE + "/lineage")
def get_lineage(ctx: Ctx, model: str, which: str) -> Response:
    """Where a version comes from and what was made from it."""
    return Json(lineage.tree(ctx, f"{model}@{which}"))


@router.post(_ONE + "/verify", status_code=201)
def verify_version(ctx: Ctx, actor: Actor, model: str, which: str) -> Response:
    """Have a job read all files of a version and check them against its signed manifest."""
    return Json(manifests.queue_check(ctx, f"{model}@{which}", actor=actor), status_code=201)


@router.post(_ONE + "/rejudge", status_code=201)
def rejudge_version(ctx: Ctx, actor: Actor, model: str, which: str) -> Response:
    """Have one version judged again by the present gate."""
    return Json(rejudging.queue(ctx, ref=f"{model}@{which}", actor=actor), status_code=201)


@router.get(_ONE)
def get_version(ctx: Ctx, model: str, which: str) -> Response:
    """One version, by number or alias."""
    return Json(versions.get(ctx, f"{model}@{which}"))


@router.patch(_ONE)
def change_version(ctx: Ctx, actor: Actor, model: str, which: str, body: ArchiveChange) -> Response:
    """Archive or restore a version."""
    change = versions.archive if body.archived else versions.restore
    change(ctx, f"{model}@{which}", actor=actor)
    return Json(versions.get(ctx, f"{model}@{which}"))


@router.delete(_ONE, status_code=204)
def delete_version(ctx: Ctx, actor: Actor, model: str, which: str) -> Response:
    """Delete a version for good."""
    versions.delete(ctx, f"{model}@{which}", actor=actor)
    return Response(status_code=204)


@router.put(_ONE + "/tags/{key}")
def set_tag(ctx: Ctx, actor: Actor, model: str, which: str, key: str, body: TagValue) -> Response:
    """Set one tag."""
    versions.set_tag(ctx, f"{model}@{which}", key, body.value, actor=actor)
    return Json(versions.get(ctx, f"{model}@{which}"))


@router.delete(_ONE + "/tags/{key}", status_code=204)
def remove_tag(ctx: Ctx, actor: Actor, model: str, which: str, key: str) -> Response:
    """Remove one tag."""
    versions.remove_tag(ctx, f"{model}@{which}", key, actor=actor)
    return Response(status_code=204)


@router.get(_ONE + "/examples")
def list_examples(ctx: Ctx, model: str, which: str) -> Response:
    """Example inputs of a version."""
    return Json(versions.examples(ctx, f"{model}@{which}"))


@router.put("/models/{model}/aliases/{alias}")
def set_alias(ctx: Ctx, actor: Actor, model: str, alias: str, body: AliasTarget) -> Response:
    """Point an alias at a version."""
    versions.set_alias(ctx, model, alias, body.version, actor=actor, waiver=body.waiver)
    return Json(versions.model(ctx, model))


@router.delete("/models/{model}/aliases/{alias}", status_code=204)
def remove_alias(ctx: Ctx, actor: Actor, model: str, alias: str) -> Response:
    """Remove an alias."""
    versions.remove_alias(ctx, model, alias, actor=actor)
    return Response(status_code=204)
