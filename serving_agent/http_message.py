"""Parts of HTTP/1.1 messages (RFC 9112) that need no connection: answers, header lines, targets. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

import msgspec

from serving_agent.errors import AgentError, InvalidRequestError, TooLargeError

JSON_TYPE: Final = b"application/json"
CLOSE: Final = b"connection: close\r\n"
MAX_LENGTH_DIGITS: Final = 18
"""Most digits of a `content-length`: no body is that long, and Python reads no integer of thousands."""

Headers = tuple[tuple[bytes, bytes], ...]
STATUS_LINE: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Response(msgspec.Struct, frozen=True):
    """One answer; the parts of `body` are sent one after another."""

    body: tuple[bytes | memoryview, ...]
    status: int = 200
    content_type: bytes = JSON_TYPE
    headers: Headers = ()

    def head(self, lines: bytes, *, ends: bool) -> bytes:
        """Return the status line and headers; *lines* come first, *ends* says that the connection does."""
        return b"%b%bcontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n" % (
            STATUS_LINE[self.status],
            lines,
            self.content_type,
            sum(map(len, self.body)),
            b"".join([b"%b: %b\r\n" % header for header in self.headers]),
            CLOSE if ends else b"",
        )


def length_fault(declared: bytes, max_body_bytes: int) -> AgentError | None:
    """Return what is wrong with a request's `content-length`, empty for none; None where nothing is."""
    if len(declared) > MAX_LENGTH_DIGITS:
        return InvalidRequestError(f"content-length has {len(declared)} digits")
    too_large = declared.isdigit() and int(declared) > max_body_bytes
    return body_too_large(max_body_bytes) if too_large else None


def body_too_large(max_body_bytes: int) -> TooLargeError:
    """Return the refusal of a body of more than *max_body_bytes*."""
    return TooLargeError(f"the body is larger than the limit of {max_body_bytes} bytes")


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Return *headers* as they are sent."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")


def path_of(target: bytes) -> str:
    """Return the path of a request target, percent-decoded, without query and trailing slash."""
    path = target.partition(b"?")[0]
    if not path.startswith(b"/"):  # absolute form, as sent to proxies
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    text = path.decode("latin-1")
    return (unquote(text) if "%" in text else text).rstrip("/") or "/"
