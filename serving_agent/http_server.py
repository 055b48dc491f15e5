"""The HTTP server inside the agent's own loop and life cycle."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

from serving_agent.addresses import BACKLOG
from serving_agent.http_protocol import Connection, Exchange, Site

TICK_S: Final = 1.0


class HttpServer:
    """Serves an application on an already bound socket."""

    def __init__(self, answer: Callable[[Exchange], None], max_body_bytes: int) -> None:
        self._site = Site(answer, max_body_bytes)
        self._server: asyncio.Server | None = None
        self._ticking: asyncio.Task[None] | None = None

    async def start(self, listener: socket.socket) -> None:
        """Serve on *listener*; connections are answered once this returns."""
        loop = asyncio.get_running_loop()
        connect = partial(Connection, self._site)
        if listener.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(connect, sock=listener, backlog=BACKLOG)
        else:
            self._server = await loop.create_server(connect, sock=listener, backlog=BACKLOG)
        self._ticking = loop.create_task(self._tick())

    def end_connections_after_answers(self) -> None:
        """From now on every answer is its connection's last; clients that go on come back on another."""
        self._site.is_closing = True

    def close(self) -> None:
        """Take no new connections and close idle ones; the others end with what is under way on them."""
        if self._server is not None:
            self._server.close()
        self.end_connections_after_answers()
        for connection in tuple(self._site.connections):
            connection.end_when_idle()

    async def wait_closed(self) -> None:
        """Return once no connection is open."""
        await self._site.empty.wait()

    async def abort(self) -> None:
        """Cut the connections that are left, and end."""
        for connection in tuple(self._site.connections):
            connection.abort()
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._site.tick()
