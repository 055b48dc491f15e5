"""The REST API on a port of its own, really serving."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from control_plane.api.app import create_api
from control_plane.services.context import Context
from tests.fakes.waiting import wait_until


@contextmanager
def serving(ctx: Context) -> Iterator[int]:
    """The API of *ctx*, mounted at /api/v1 on a free port; yields the port."""
    app = Starlette(routes=[Mount("/api/v1", create_api(ctx))])
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ws="none")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, timeout_s=20, what=lambda: "the API server")
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
