"""Content encodings of bodies: gzip and deflate, both ways (RFC 9110 8.4). Pure."""

from __future__ import annotations

import gzip
import zlib
from typing import Final

from serving_agent.errors import InvalidRequestError, TooLargeError

ZLIB_OR_GZIP: Final = 32 + zlib.MAX_WBITS
"""zlib's window setting that recognises both headers by itself."""
LEVEL: Final = 1
"""Compression level of replies: floats gain little from higher ones, which take several times as long."""

MAX_MEMBERS: Final = 4096
"""Most gzip members of one body: writers that work in blocks make one for some 64 KiB."""
PIECE_BYTES: Final = 64 * 1024
"""What is unpacked at once: a member's end leaves a copy of what follows it in the piece."""

Body = bytes | bytearray


def unpack(body: Body, encoding: bytes, max_bytes: int) -> Body:
    """Return *body* without its content encoding. Raises TooLargeError or InvalidRequestError."""
    name = encoding.decode("latin-1").strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "deflate"):
        raise InvalidRequestError(
            f"the content encoding {name[:40]!r} is not supported; use gzip, deflate or none"
        )
    parts: list[bytes] = []
    rest, room = memoryview(body), max_bytes
    for _ in range(MAX_MEMBERS if name == "gzip" else 1):
        content, used = _member(rest, name, room)
        if len(content) > room:
            raise TooLargeError(f"the body is larger than the limit of {max_bytes} bytes")
        parts.append(content)
        rest, room = rest[used:], room - len(content)
        if not rest:
            return parts[0] if len(parts) == 1 else b"".join(parts)
    raise InvalidRequestError(f"the body has {len(rest)} bytes behind the end of its {name} stream")


def _member(data: memoryview, name: str, room: int) -> tuple[bytes, int]:
    """Return the content of the first gzip member (or zlib stream) in *data*, and that one's own size.

    What is larger than *room* bytes comes back as that and one more. Raises InvalidRequestError.
    """
    unpacker = zlib.decompressobj(ZLIB_OR_GZIP)
    parts: list[bytes] = []
    used = size = 0
    while size <= room and not unpacker.eof and used < len(data):
        piece = data[used : used + PIECE_BYTES]
        try:
            parts.append(unpacker.decompress(piece, room - size + 1))
        except zlib.error:
            raise InvalidRequestError(f"the body is not valid {name}") from None
        used += len(piece) - len(unpacker.unused_data)
        size += len(parts[-1])
    if size <= room and not unpacker.eof:
        raise InvalidRequestError(f"the body is cut off: its {name} stream does not end")
    return b"".join(parts), used


def wanted_encoding(accept: bytes) -> bytes | None:
    """Return the encoding a client asks for in its `accept-encoding`; None to send the body as it is.

    Asking is naming gzip or deflate and nothing else. A list of encodings is what HTTP libraries send with
    every request: it tells what they could read, and compressing tensors for all of them would cost more time
    than it saves.
    """
    name = accept.strip().lower()
    return name if name in (b"gzip", b"deflate") else None


def pack(parts: tuple[bytes | memoryview, ...], encoding: bytes) -> bytes:
    """Return the body made of *parts* in *encoding*: `gzip`, or `deflate` in zlib's form (RFC 9110)."""
    body = b"".join(parts)
    return gzip.compress(body, LEVEL, mtime=0) if encoding == b"gzip" else zlib.compress(body, LEVEL)
