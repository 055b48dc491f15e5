"""What every HTTP request and websocket passes first: host names, origins and security headers.

The dashboard listens on the loopback address, so the attacks that remain come through the operator's own
browser: a foreign page that posts to us or opens our websocket, and a foreign name that resolves to
127.0.0.1 (DNS rebinding). Pure ASGI, no state.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Names under which a browser on this machine reaches the dashboard."""
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE: Final = frozenset({"same-origin", "none"})

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' blob: data:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}
"""Sent with every answer. Inline scripts and eval are Streamlit's and Plotly's own need; nothing may be
loaded from, sent to or framed by another origin."""


def host_name(host: str) -> str:
    """The name in a Host header, lower case and without the port: `[::1]:8501` gives `[::1]`."""
    name = host.strip().lower()
    if name.startswith("["):
        inner, closing, _ = name.partition("]")
        return inner + closing
    return name.partition(":")[0]


def refusal(kind: str, method: str, headers: Headers, hosts: frozenset[str]) -> str | None:
    """Why a request may not pass, as a sentence, or None.

    kind: ASGI's "http" or "websocket". Requests without Origin and Sec-Fetch-Site come from programs, not
    from a page in a browser, and pass. Pure.
    """
    host = headers.get("host", "")
    if host_name(host) not in hosts:
        return f"The dashboard does not answer to the name {host_name(host)!r}."
    if kind == "http" and method in SAFE_METHODS:
        return None
    if headers.get("sec-fetch-site", "none") not in _OWN_SITE:
        return "This request was started by a page of another site."
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.strip().lower():
        return "This request was started by a page of another origin."
    return None


class Gate:
    """ASGI middleware that refuses foreign hosts and origins and adds the security headers."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] = LOOPBACK_HOSTS) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403 (websocket: refuse the handshake)."""
        kind = scope["type"]
        if kind not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        why = refusal(kind, scope.get("method", "GET"), Headers(scope=scope), self._hosts)
        if why is None:
            await self._app(scope, receive, _with_headers(send))
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": why})
        else:
            await _refused(why)(scope, receive, _with_headers(send))


def _refused(why: str) -> JSONResponse:
    error: dict[str, Any] = {
        "code": "forbidden",
        "message": why,
        "next_step": "Open the dashboard at its own address: http://127.0.0.1 with its port.",
        "details": {},
    }
    return JSONResponse({"error": error}, status_code=403)


def _with_headers(send: Send) -> Send:
    async def forward(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return forward
