"""The clients that ask: tritonclient in its four flavours, and plain HTTP; all are awaited alike."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final, Literal

import httpx
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio

Protocol = Literal["http", "grpc", "raw"]

FLAVOURS: Final[dict[Protocol, tuple[str, ...]]] = {
    "http": ("sync", "aio"),
    "grpc": ("sync", "aio"),
    "raw": ("httpx",),
}
"""Protocol → flavours of its client. `raw` is HTTP without a client library in between."""
TIMEOUT_S: Final = 20.0

_MODULES: Final[dict[tuple[str, str], ModuleType]] = {
    ("http", "sync"): triton_http,
    ("http", "aio"): triton_http_aio,
    ("grpc", "sync"): triton_grpc,
    ("grpc", "aio"): triton_grpc_aio,
}


@dataclass(frozen=True, slots=True)
class Session:
    """An open client and the model it asks about.

    module: the part of tritonclient it comes from, for its tensor classes; None for plain HTTP.
    """

    protocol: Protocol
    flavour: str
    model: str
    client: Any
    module: Any = None

    async def ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call *method* of the client, sync or not. Raises InferenceServerException."""
        answer = getattr(self.client, method)(*arguments, **options)
        return await answer if inspect.isawaitable(answer) else answer


@contextlib.asynccontextmanager
async def opened(protocol: Protocol, flavour: str, address: str, model: str) -> AsyncIterator[Session]:
    """Open a client of *address*, `host:port`; it is closed with the block."""
    if protocol == "raw":
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=TIMEOUT_S) as http:
            yield Session(protocol, flavour, model, http)
        return
    module = _MODULES[protocol, flavour]
    session = Session(protocol, flavour, model, module.InferenceServerClient(address), module)
    try:
        yield session
    finally:
        await session.ask("close")
