"""LitServe (Lightning AI)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.serving import environments, processes
from benchmarks.serving.peers import python_app
from benchmarks.serving.peers.base import Start, Target, Variant, Wire


class LitServe:
    """One API server and one worker process. Tuned: ZMQ queue, no access log."""

    name = "litserve"
    title = "LitServe"
    wires: frozenset[Wire] = frozenset({"own_json"})
    variants = (Variant(), Variant(tuned=True), Variant(tuned=True, batching=True))

    def prepare(self, environment: Path) -> None:
        """Nothing to do: pip installs all of it."""

    @contextlib.contextmanager
    def start(self, start: Start) -> Iterator[Target]:
        (port,) = processes.free_ports(1)
        command = [environments.python(self.name), python_app.APPS / "litserve_app.py"]
        settings = python_app.settings(start, port, 0)
        with processes.running(command, folder=start.folder, core=start.core, environment=settings) as server:
            server.wait_until(lambda: processes.answers(f"http://127.0.0.1:{port}/health"))
            yield Target(rest=f"127.0.0.1:{port}", rest_path="/predict", json_key='"y"')
