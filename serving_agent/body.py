"""Reading an ASGI request body within its bound, and noticing that its client has gone."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeVar

from serving_agent.errors import InvalidRequestError, TooLargeError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
T = TypeVar("T")

ZLIB_OR_GZIP: Final = 32 + zlib.MAX_WBITS
"""zlib's window setting that recognises both headers by itself."""


class ClientGoneError(Exception):
    """The client closed its connection before the answer."""


async def read_body(headers: dict[bytes, bytes], receive: Receive, max_bytes: int) -> bytes:
    """Return the whole body, unpacked where it is gzip or deflate.

    Raises TooLargeError above *max_bytes*, before and after unpacking, InvalidRequestError for an unknown or
    broken encoding, and ClientGoneError.
    """
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        more = message.get("more_body", False)
        if size > max_bytes:
            raise _too_large(max_bytes)
    return unpack(b"".join(chunks), headers.get(b"content-encoding", b"identity"), max_bytes)


def unpack(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """Return *body* without its content encoding. Raises TooLargeError or InvalidRequestError. Pure."""
    name = encoding.decode("latin-1").strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "deflate"):
        raise InvalidRequestError(
            f"the content encoding {name[:40]!r} is not supported; use gzip, deflate or none"
        )
    unpacker = zlib.decompressobj(ZLIB_OR_GZIP)
    try:
        content = unpacker.decompress(body, max_bytes + 1)
    except zlib.error:
        raise InvalidRequestError(f"the body is not valid {name}") from None
    if len(content) > max_bytes:
        raise _too_large(max_bytes)
    if not unpacker.eof:
        raise InvalidRequestError(f"the body is cut off: its {name} stream does not end")
    return content


async def answer_unless_gone(answer: Awaitable[T], receive: Receive) -> T:
    """Return *answer*, or cancel it and raise ClientGoneError once the client disconnects."""
    answering = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        raise ClientGoneError
    finally:
        gone.cancel()
        answering.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(f"the body is larger than the limit of {max_bytes} bytes")
