"""What no route gets to see: bodies that are too large or not JSON, and requests from other web sites."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.api import errors

JSON_LIMIT_BYTES: Final = 1024 * 1024
PREDICT_LIMIT_BYTES: Final = 64 * 1024 * 1024
_FILE_ROUTES: Final = (
    ("PUT", re.compile(r".*/uploads/[^/]+/files/.+")),
    ("", re.compile(r".*/tus(/[^/]*)?")),
    ("POST", re.compile(r".*/optimization/calibration")),
)
"""Routes whose bodies are files, with the method they take; "" for every method."""
_TENSOR_ROUTES: Final = re.compile(r".*/(endpoints/[^/]+/predict|models/[^/]+/golden-sets|debug-runs)")
"""Routes whose JSON holds tensors."""
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware: reads JSON bodies up to their limit, and lets file bodies stream through."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] in _SAFE_METHODS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if _from_another_site(headers):
            await errors.of_status(403, "Requests from other web sites are refused")(scope, receive, send)
        elif _takes_files(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
        else:
            await self._serve_json(scope, receive, send, headers)

    async def _serve_json(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        limit = PREDICT_LIMIT_BYTES if _TENSOR_ROUTES.fullmatch(scope["path"]) else JSON_LIMIT_BYTES
        body = await _read(receive, headers, limit)
        if body is None:
            refusal = errors.of_status(413, f"The body is larger than {limit} bytes")
            await refusal(scope, receive, send)
        elif body and headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            await errors.of_status(415, "The body must be application/json")(scope, receive, send)
        else:
            await self._app(scope, _replay(body, receive), send)


def _takes_files(method: str, path: str) -> bool:
    return any(route.fullmatch(path) for each, route in _FILE_ROUTES if each in ("", method))


def _from_another_site(headers: Headers) -> bool:
    """Whether a browser says that a page of another site sent this (Fetch Metadata, or Origin without it)."""
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")


async def _read(receive: Receive, headers: Headers, limit: int) -> bytes | None:
    """The whole body; None when it is larger than *limit* or its sender is gone."""
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > limit:
        return None
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives *body* once, then what the server has to say."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
