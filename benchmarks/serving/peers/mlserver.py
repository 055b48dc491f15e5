"""MLServer (Seldon) with a custom torch runtime."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.serving import environments, processes
from benchmarks.serving.peers import python_app
from benchmarks.serving.peers.base import MAX_BATCH, MODEL_NAME, Start, Target, Variant, Wire

BATCH_WAIT_S: Final = 0.002


class MLServer:
    """Default: one inference worker process, access log, metrics.

    Tuned: no worker process, no access log, no metrics, httptools.
    """

    name = "mlserver"
    title = "MLServer"
    wires: frozenset[Wire] = frozenset({"oip_json", "grpc"})
    variants = (Variant(), Variant(tuned=True), Variant(tuned=True, batching=True))

    def prepare(self, environment: Path) -> None:  # noqa: ARG002 - of the protocol
        """Put aside what the tuned variant adds to the installation."""
        environments.install_aside(self.name)

    @contextlib.contextmanager
    def start(self, start: Start) -> Iterator[Target]:
        port, grpc_port, metrics_port = processes.free_ports(3)
        ports = {"http_port": port, "grpc_port": grpc_port, "metrics_port": metrics_port}
        _write(start.folder / "settings.json", {"host": "127.0.0.1", **ports, **_tuning(start.variant)})
        _write(start.folder / "model-settings.json", _model(start.variant))
        command = [environments.folder(self.name) / "bin" / "mlserver", "start", "."]
        settings = python_app.settings(start, port, grpc_port)
        if start.variant.tuned:
            settings["PYTHONPATH"] += f":{environments.aside(self.name)}"
        with processes.running(command, folder=start.folder, core=start.core, environment=settings) as server:
            ready = f"http://127.0.0.1:{port}/v2/models/{MODEL_NAME}/ready"
            server.wait_until(lambda: processes.answers(ready))
            yield Target(rest=f"127.0.0.1:{port}", grpc=f"127.0.0.1:{grpc_port}")


def _tuning(variant: Variant) -> dict[str, Any]:
    return {"parallel_workers": 0, "debug": False, "metrics_endpoint": None} if variant.tuned else {}


def _model(variant: Variant) -> dict[str, Any]:
    batching = {"max_batch_size": MAX_BATCH, "max_batch_time": BATCH_WAIT_S} if variant.batching else {}
    return {"name": MODEL_NAME, "implementation": "mlserver_runtime.TorchModel", **batching}


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document))
