"""Routes of uploads; file bodies go straight to the disk."""

from __future__ import annotations

import time
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from control_plane.api.caller import Actor, Ctx, PageNumber, PageSize
from control_plane.api.encoding import Json
from control_plane.api.schemas import UploadAnswer, UploadBody, signature_of
from control_plane.errors import InvalidInputError, SignalboxError
from control_plane.services import uploads
from control_plane.services.receiving import FileSink

router = APIRouter(tags=["uploads"])

BUFFER_BYTES: Final = 4 * 1024 * 1024
DRAIN_S: Final = 30.0
"""After a refusal the rest of the body is read and dropped this long, so that the client sees the answer."""


@router.post("/uploads", status_code=201)
def create_upload(ctx: Ctx, actor: Actor, body: UploadBody) -> Response:
    """Declare the files of a new version."""
    created = uploads.create(
        ctx,
        model=body.model,
        files=[(file.path, file.size_bytes) for file in body.files],
        actor=actor,
        details=body.details,
        signature=signature_of(body.signature),
        labels=body.labels,
        handler=body.handler,
        accept_program=body.accept_program,
    )
    return Json(created, status_code=201)


@router.get("/uploads")
def list_uploads(ctx: Ctx, page: PageNumber = 1, page_size: PageSize = 20) -> Response:
    """Uploads newest first, one page."""
    return Json(uploads.recent(ctx, page=page, page_size=page_size))


@router.get("/uploads/{upload_id}")
def get_upload(ctx: Ctx, upload_id: str) -> Response:
    """One upload."""
    return Json(uploads.get(ctx, upload_id))


@router.put("/uploads/{upload_id}/files/{path:path}")
async def put_file(ctx: Ctx, request: Request, upload_id: str, path: str) -> Response:
    """The bytes of one declared file, as the raw body. Sending it again replaces it."""
    try:
        sink = await run_in_threadpool(uploads.sink, ctx, upload_id, path)
        await _pour(request, sink)
    except SignalboxError:
        await _drain(request)
        raise
    except ClientDisconnect:
        return Response(status_code=400)  # nobody is left to read it
    return Json(await run_in_threadpool(uploads.get, ctx, upload_id))


@router.post("/uploads/{upload_id}/complete")
def complete_upload(ctx: Ctx, actor: Actor, upload_id: str) -> Response:
    """All bytes are sent: have them checked."""
    return Json(uploads.complete(ctx, upload_id, actor=actor))


@router.post("/uploads/{upload_id}/answer")
def answer_upload(ctx: Ctx, actor: Actor, upload_id: str, body: UploadAnswer) -> Response:
    """Give what the check asked for."""
    answered = uploads.answer(
        ctx,
        upload_id,
        actor=actor,
        accept_program=body.accept_program,
        signature=signature_of(body.signature),
        labels=body.labels,
        handler=body.handler,
    )
    return Json(answered)


@router.delete("/uploads/{upload_id}")
def cancel_upload(ctx: Ctx, actor: Actor, upload_id: str) -> Response:
    """End an upload and drop its files."""
    return Json(uploads.cancel(ctx, upload_id, actor=actor))


async def _pour(request: Request, sink: FileSink) -> None:
    """Write the body to *sink* from a thread, a buffer at a time; a body that stops short leaves nothing."""
    try:
        _check_length(request, sink.size_bytes)
        buffer = bytearray()
        async for chunk in request.stream():
            buffer += chunk
            if len(buffer) >= BUFFER_BYTES:
                await run_in_threadpool(sink.write, bytes(buffer))
                buffer.clear()
        await run_in_threadpool(sink.write, bytes(buffer))
        await run_in_threadpool(sink.commit)
    finally:
        await run_in_threadpool(sink.abort)


def _check_length(request: Request, size_bytes: int) -> None:
    length = request.headers.get("content-length")
    if length is not None and length != str(size_bytes):
        raise InvalidInputError(
            f"The body has {length} bytes, but {size_bytes} were declared for this file",
            next_step="Declare the file's real size and send it again.",
        )


async def _drain(request: Request) -> None:
    """Read what the client still sends, so that it gets to reading the answer."""
    until = time.monotonic() + DRAIN_S
    try:
        async for _ in request.stream():
            if time.monotonic() > until:
                return
    except (ClientDisconnect, RuntimeError):  # gone, or the body was read to its end already
        return
