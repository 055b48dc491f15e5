"""The upper bound of Python servers: a bare ASGI application and a bare grpc.aio server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.serving import environments, processes
from benchmarks.serving.peers import python_app
from benchmarks.serving.peers.base import Start, Target, Variant, Wire


class Bound:
    """uvicorn, uvloop, httptools, orjson and nothing else; the model runs on the event loop."""

    name = "bound"
    title = "bare ASGI / grpc.aio (bound)"
    wires: frozenset[Wire] = frozenset({"oip_json", "oip_binary", "grpc"})
    variants = (Variant(),)

    def prepare(self, environment: Path) -> None:
        """Nothing to do: pip installs all of it."""

    @contextlib.contextmanager
    def start(self, start: Start) -> Iterator[Target]:
        port, grpc_port = processes.free_ports(2)
        command = [environments.python(self.name), python_app.APPS / "bound_app.py"]
        settings = python_app.settings(start, port, grpc_port)
        with processes.running(command, folder=start.folder, core=start.core, environment=settings) as server:
            server.wait_until(lambda: processes.listens(port) and processes.listens(grpc_port))
            yield Target(rest=f"127.0.0.1:{port}", grpc=f"127.0.0.1:{grpc_port}")
