"""The tus protocol 1.0.0: files in pieces, resumable. One tus upload is one declared file of an upload.

Spoken: core, creation, creation-with-upload, termination, checksum (sha256, sha1), expiration. Offsets live
in the registry and never run ahead of the disk.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool

from control_plane.api import errors, pouring, tus_headers
from control_plane.api.caller import Ctx
from control_plane.errors import InvalidInputError, SignalboxError, TooLargeError
from control_plane.services import tus
from control_plane.services.context import Context
from control_plane.services.receiving import Incoming
from control_plane.services.tus import Transfer

router = APIRouter(tags=["tus"])

SPOKEN: Final = {"Tus-Resumable": tus_headers.VERSION}
Route = Callable[..., Awaitable[Response]]


def _tus(route: Route) -> Route:
    """Check the protocol's version, and answer refusals with the protocol's headers."""

    @wraps(route)
    async def answered(request: Request, ctx: Ctx, **given: str) -> Response:
        if request.headers.get("tus-resumable") != tus_headers.VERSION:
            await pouring.Body(request).drain()
            words = f"Tus-Resumable must be {tus_headers.VERSION}"
            return errors.of_status(412, words, headers={**SPOKEN, "Tus-Version": tus_headers.VERSION})
        body = pouring.Body(request)
        request.state.body = body
        try:
            answer = await route(request, ctx, **given)
        except SignalboxError as error:
            await body.drain()
            answer = errors.of_error(error)
        except pouring.Stopped:
            answer = Response(status_code=400)  # nobody is left to read it
        answer.headers.update(SPOKEN)
        return answer

    return answered


@router.options("/tus")
async def describe_tus(ctx: Ctx) -> Response:
    """Say which parts of tus are spoken, and the largest file."""
    return Response(
        status_code=204,
        headers={
            **SPOKEN,
            "Tus-Version": tus_headers.VERSION,
            "Tus-Extension": tus_headers.EXTENSIONS,
            "Tus-Max-Size": str(ctx.settings.max_upload_bytes),
            "Tus-Checksum-Algorithm": ",".join(tus_headers.ALGORITHMS),
        },
    )


@router.post("/tus", status_code=201)
@_tus
async def create_transfer(request: Request, ctx: Ctx) -> Response:
    """Begin to send one declared file, named by `Upload-Metadata: upload …, path …[, sha256 …]` (tus)."""
    if "upload-defer-length" in request.headers:
        raise InvalidInputError("The size must be known: send Upload-Length, not Upload-Defer-Length")
    size_bytes = tus_headers.number("Upload-Length", request.headers.get("upload-length"))
    if size_bytes > ctx.settings.max_upload_bytes:
        raise TooLargeError(
            f"{size_bytes} bytes are more than the {ctx.settings.max_upload_bytes} that are taken",
            next_step="Raise SIGNALBOX_MAX_UPLOAD_BYTES if it must be.",
        )
    named = tus_headers.metadata(request.headers.get("upload-metadata"))
    sha256 = tus_headers.sha256(named.get("sha256"))
    upload_id, path = _named(named, "upload"), _named(named, "path")
    transfer = await run_in_threadpool(
        lambda: tus.begin(ctx, upload_id, path, size_bytes=size_bytes, sha256=sha256)
    )
    offset = transfer.offset
    if request.headers.get("content-type") == tus_headers.BODY_TYPE:
        offset = await _pour(request, ctx, transfer, 0)
        transfer = await run_in_threadpool(tus.find, ctx, transfer.id)
    place = f"{request.scope.get('root_path', '')}/tus/{transfer.id}"
    return Response(
        status_code=201, headers={"Location": place, "Upload-Offset": str(offset), **_expires(transfer)}
    )


@router.options("/tus/{transfer_id}")
async def describe_tus_of_transfer(ctx: Ctx, transfer_id: str) -> Response:  # noqa: ARG001  of no matter
    """Say which parts of tus are spoken, as `OPTIONS /tus`."""
    return await describe_tus(ctx)


@router.head("/tus/{transfer_id}")
@_tus
async def look_at_transfer(request: Request, ctx: Ctx, transfer_id: str) -> Response:
    """How many bytes of a file are safe, in `Upload-Offset` (tus)."""
    await pouring.of(request).noticed(transfer_id)
    transfer = await run_in_threadpool(tus.find, ctx, transfer_id)
    named = {"upload": transfer.upload_id, "path": transfer.path}
    return Response(
        headers={
            "Cache-Control": "no-store",
            "Upload-Offset": str(transfer.offset),
            "Upload-Length": str(transfer.size_bytes),
            "Upload-Metadata": tus_headers.format_metadata(named),
            **_expires(transfer),
        }
    )


@router.patch("/tus/{transfer_id}", status_code=204)
@_tus
async def continue_transfer(request: Request, ctx: Ctx, transfer_id: str) -> Response:
    """More bytes of a file, from `Upload-Offset` on; `Upload-Checksum` is compared when given (tus)."""
    if request.headers.get("content-type") != tus_headers.BODY_TYPE:
        await request.state.body.drain()
        return errors.of_status(415, f"The body must be {tus_headers.BODY_TYPE}")
    offset = tus_headers.number("Upload-Offset", request.headers.get("upload-offset"))
    transfer = await run_in_threadpool(tus.find, ctx, transfer_id)
    offset = await _pour(request, ctx, transfer, offset)
    transfer = await run_in_threadpool(tus.find, ctx, transfer_id)  # it expires later than before
    return Response(status_code=204, headers={"Upload-Offset": str(offset), **_expires(transfer)})


@router.delete("/tus/{transfer_id}", status_code=204)
@_tus
async def end_transfer(request: Request, ctx: Ctx, transfer_id: str) -> Response:
    """Drop what has arrived of a file; it can be sent anew (tus)."""
    await pouring.of(request).settled(transfer_id, force=True)
    await run_in_threadpool(tus.terminate, ctx, transfer_id)
    return Response(status_code=204)


@router.post("/tus/{transfer_id}", status_code=204)
async def overridden(request: Request, ctx: Ctx, transfer_id: str) -> Response:
    """PATCH or DELETE for clients that cannot send them, named by `X-HTTP-Method-Override` (tus)."""
    routes: Mapping[str, Route] = {"PATCH": continue_transfer, "DELETE": end_transfer}
    route = routes.get(request.headers.get("x-http-method-override", "").upper())
    if route is None:
        return errors.of_status(
            405, "Send PATCH or DELETE", headers={**SPOKEN, "Allow": "PATCH, DELETE, HEAD, OPTIONS"}
        )
    return await route(request=request, ctx=ctx, transfer_id=transfer_id)


async def _pour(request: Request, ctx: Context, transfer: Transfer, offset: int) -> int:
    """Write the body, and return how many bytes of the file are safe then."""
    checksum = tus_headers.checksum(request.headers.get("upload-checksum"))
    length = request.headers.get("content-length", "")
    if length.isdecimal() and offset + int(length[:20]) > transfer.size_bytes:
        raise TooLargeError(
            f"{length} bytes from {offset} on are more than the {transfer.size_bytes} that were declared",
            next_step="Declare the file's real size in a new upload.",
        )
    if transfer.whole and offset == transfer.size_bytes:
        return offset

    def opened() -> Incoming:
        return tus.receive(ctx, transfer.id, offset=offset, checksum=checksum)

    incoming = await pouring.of(request).pour(request.state.body, transfer.id, opened)
    return incoming.offset


def _named(metadata: Mapping[str, str], key: str) -> str:
    try:
        return metadata[key]
    except KeyError:
        raise InvalidInputError(
            f"Upload-Metadata lacks {key!r}",
            next_step="Declare the files with POST /uploads, then name upload and path.",
        ) from None


def _expires(transfer: Transfer) -> dict[str, str]:
    return {} if transfer.whole else {"Upload-Expires": tus_headers.http_date(transfer.expires_at)}
