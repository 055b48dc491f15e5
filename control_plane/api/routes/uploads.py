"""Routes of uploads; file bodies go straight to the disk."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from control_plane.api import pouring
from control_plane.api.caller import Actor, Ctx, PageNumber, PageSize
from control_plane.api.encoding import Json
from control_plane.api.schemas import CompleteBody, UploadAnswer, UploadBody, network_of, signature_of
from control_plane.domain.upload import UploadState
from control_plane.errors import InvalidInputError, SignalboxError
from control_plane.services import imports, tus, uploads
from control_plane.services.upload_declarations import NewFile

router = APIRouter(tags=["uploads"])


@router.post("/uploads", status_code=201)
def create_upload(ctx: Ctx, actor: Actor, body: UploadBody) -> Response:
    """Declare the files of a new version, or have them fetched from a path or URL that settings allow."""
    given: dict[str, Any] = {
        "model": body.model,
        "actor": actor,
        "details": body.details,
        "signature": signature_of(body.signature),
        "architecture": network_of(body.architecture),
        "labels": body.labels,
        "handler": body.handler,
        "accept_program": body.accept_program,
    }
    if body.reference is not None:
        return Json(imports.create(ctx, reference=body.reference, **given), status_code=201)
    files = [NewFile(file.path, file.size_bytes, file.modified_ms) for file in body.files]
    return Json(uploads.create(ctx, files=files, **given), status_code=201)


@router.get("/uploads")
def list_uploads(
    ctx: Ctx, state: UploadState | None = None, page: PageNumber = 1, page_size: PageSize = 20
) -> Response:
    """Uploads newest first, one page."""
    return Json(uploads.recent(ctx, state=state, page=page, page_size=page_size))


@router.get("/uploads/{upload_id}")
def get_upload(ctx: Ctx, upload_id: str) -> Response:
    """One upload."""
    return Json(uploads.get(ctx, upload_id))


@router.put("/uploads/{upload_id}/files/{path:path}")
async def put_file(ctx: Ctx, request: Request, upload_id: str, path: str) -> Response:
    """The bytes of one declared file in one go, as the raw body; sending it again replaces it."""
    writes = pouring.of(request)
    body = pouring.Body(request)
    try:
        former, size_bytes = await run_in_threadpool(tus.current, ctx, upload_id, path)
        _check_length(request, size_bytes)
        if former is not None:
            await writes.settled(former)
        transfer = await writes.run(lambda: tus.restart(ctx, upload_id, path))
        incoming = await writes.pour(body, transfer.id, lambda: tus.receive(ctx, transfer.id, offset=0))
        if incoming.received is None:
            raise InvalidInputError(
                f"{incoming.offset} of {transfer.size_bytes} bytes arrived", next_step="Send the file again."
            )
    except SignalboxError:
        await body.drain()
        raise
    except pouring.Stopped:
        return Response(status_code=400)  # nobody is left to read it
    return Json(await run_in_threadpool(uploads.get, ctx, upload_id))


@router.post("/uploads/{upload_id}/complete")
def complete_upload(ctx: Ctx, actor: Actor, upload_id: str, body: CompleteBody | None = None) -> Response:
    """All bytes are sent: have them checked."""
    sha256 = body.sha256 if body else {}
    return Json(uploads.complete(ctx, upload_id, actor=actor, sha256=sha256))


@router.post("/uploads/{upload_id}/answer")
def answer_upload(ctx: Ctx, actor: Actor, upload_id: str, body: UploadAnswer) -> Response:
    """Give what the check asked for."""
    answered = uploads.answer(
        ctx,
        upload_id,
        actor=actor,
        accept_program=body.accept_program,
        signature=signature_of(body.signature),
        architecture=network_of(body.architecture),
        labels=body.labels,
        handler=body.handler,
    )
    return Json(answered)


@router.delete("/uploads/{upload_id}")
def cancel_upload(ctx: Ctx, actor: Actor, upload_id: str) -> Response:
    """End an upload and drop its files."""
    return Json(uploads.cancel(ctx, upload_id, actor=actor))


def _check_length(request: Request, size_bytes: int) -> None:
    length = request.headers.get("content-length")
    if length is not None and length != str(size_bytes):
        raise InvalidInputError(
            f"The body has {length} bytes, but {size_bytes} were declared for this file",
            next_step="Declare the file's real size and send it again.",
        )
