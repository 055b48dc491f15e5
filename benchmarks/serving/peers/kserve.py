"""KServe's Python model server with a custom model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.serving import environments, processes
from benchmarks.serving.peers import python_app
from benchmarks.serving.peers.base import MODEL_NAME, Start, Target, Variant, Wire


class KServe:
    """Tuned: no latency log, no access log. No batching: KServe leaves that to a sidecar.

    It listens on all addresses.
    """

    name = "kserve"
    title = "KServe (Python server)"
    wires: frozenset[Wire] = frozenset({"oip_json", "oip_binary", "grpc"})
    variants = (Variant(), Variant(tuned=True))

    def prepare(self, environment: Path) -> None:
        """Nothing to do: pip installs all of it."""

    @contextlib.contextmanager
    def start(self, start: Start) -> Iterator[Target]:
        port, grpc_port = processes.free_ports(2)
        command = [environments.python(self.name), python_app.APPS / "kserve_app.py"]
        settings = python_app.settings(start, port, grpc_port)
        with processes.running(command, folder=start.folder, core=start.core, environment=settings) as server:
            ready = f"http://127.0.0.1:{port}/v2/models/{MODEL_NAME}/ready"
            server.wait_until(lambda: processes.answers(ready) and processes.listens(grpc_port))
            yield Target(rest=f"127.0.0.1:{port}", grpc=f"127.0.0.1:{grpc_port}")
