"""Signalbox's serving agent, called directly and through its gateway (Envoy)."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.serving import processes
from benchmarks.serving.peers.base import MAX_BATCH, MODEL_NAME, Start, Target, Variant, Wire
from benchmarks.serving.workloads import INPUT, OUTPUT
from control_plane.config import Settings
from control_plane.gateway import envoy_process
from control_plane.gateway.envoy import EnvoyGateway
from control_plane.gateway.traffic_plan import Backend, Replica, TrafficPlan

VERSION: Final = f"{MODEL_NAME}@1"
HEALTHY_TIMEOUT_S: Final = 30.0
TUNED_DELAY_MS: Final = 2.0
"""What the tuned variant waits for others while the model is idle; as installed it waits for nobody."""


class Signalbox:
    """The agent on two TCP ports. Tuned: an idle model waits a little for more requests, as peers' do."""

    name = "signalbox"
    title = "Signalbox agent"
    wires: frozenset[Wire] = frozenset({"oip_json", "oip_binary", "grpc"})
    variants = (Variant(), Variant(batching=True), Variant(tuned=True, batching=True))

    def prepare(self, environment: Path) -> None:
        """Nothing to do: it runs in this environment."""

    @contextlib.contextmanager
    def start(self, start: Start) -> Iterator[Target]:
        port, grpc_port = processes.free_ports(2)
        target = Target(rest=f"127.0.0.1:{port}", grpc=f"127.0.0.1:{grpc_port}")
        with agent(start, target) as server:
            server.wait_until(lambda: processes.answers(f"http://127.0.0.1:{port}/ready"))
            yield target


class SignalboxGateway:
    """The agent on Unix sockets behind Envoy, as the product runs it; both on the server's core."""

    name = "gateway"
    title = "Signalbox through Envoy"
    wires: frozenset[Wire] = frozenset({"oip_json", "oip_binary", "grpc"})
    variants = (Variant(),)

    def prepare(self, environment: Path) -> None:
        """Nothing to do: it runs in this environment."""

    @contextlib.contextmanager
    def start(self, start: Start) -> Iterator[Target]:
        (port,) = processes.free_ports(1)
        # a socket's path may have about 100 characters, and the start's folder may be deep
        with tempfile.TemporaryDirectory(prefix="sb-") as home:
            target = Target(rest=f"unix:{home}/rest.sock", grpc=f"unix:{home}/grpc.sock")
            settings = Settings(home=Path(home), gateway_port=port)
            with agent(start, target) as server, envoy(start, settings) as proxy:
                _route(settings, target, server, proxy)
                yield Target(rest=f"127.0.0.1:{port}", grpc=f"127.0.0.1:{port}")


def agent(start: Start, target: Target) -> contextlib.AbstractContextManager[processes.Server]:
    """Start an agent that listens where *target* says."""
    path = start.folder / "manifest.json"
    path.write_text(json.dumps(manifest(start, target)))
    command = [sys.executable, "-m", "serving_agent", "--manifest", path]
    return processes.running(command, folder=start.folder, core=start.core, name="agent")


def manifest(start: Start, target: Target) -> dict[str, Any]:
    """Return the manifest of an agent for *start*; see `serving_agent.contract.manifest`."""
    workload = start.workload
    return {
        "agent_id": "agent-1",
        "endpoint": MODEL_NAME,
        "model": MODEL_NAME,
        "version": 1,
        "digest": "sha256:" + "0" * 64,
        "format": "torchscript",
        "handler": "tensor",
        "artifact_dir": str(start.model_dir.resolve()),
        "signature": {
            "inputs": [_tensor(INPUT, workload.row)],
            "outputs": [_tensor(OUTPUT, workload.answer)],
        },
        "rest_address": target.rest,
        "grpc_address": target.grpc,
        "device": "cpu",
        "threads": 1,
        "options": _options(start.variant),
    }


def _options(variant: Variant) -> dict[str, Any]:
    """Batching is on as the product comes; without it is what has to be asked for."""
    if not variant.batching:
        return {"batching": {"max_rows": 1}}
    if not variant.tuned:
        return {}
    return {"batching": {"max_rows": MAX_BATCH, "max_delay_ms": TUNED_DELAY_MS}}


def _tensor(name: str, row: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, "datatype": "FP32", "shape": [-1, *row]}


def envoy(start: Start, settings: Settings) -> contextlib.AbstractContextManager[processes.Server]:
    """Start Envoy on *settings*' home and port, pinned like the agent."""
    envoy_process.prepare_files(settings)
    command = envoy_process.command(settings)
    return processes.running(command, folder=start.folder, core=start.core, name="envoy")


def _route(settings: Settings, target: Target, server: processes.Server, proxy: processes.Server) -> None:
    """Send everything to the agent, confirmed by Envoy, once its health checks pass."""
    gateway = EnvoyGateway(settings)
    proxy.wait_until(lambda: gateway.observe().live)
    replica = Replica("agent-1", str(target.rest), str(target.grpc))
    plans = [TrafficPlan(MODEL_NAME, (Backend(VERSION, (replica,), 1.0),))]
    gateway.publish_backends(plans)
    server.wait_until(lambda: _healthy(gateway), HEALTHY_TIMEOUT_S)
    gateway.publish_routes(plans)


def _healthy(gateway: EnvoyGateway) -> bool:
    backend = gateway.observe().backends.get((MODEL_NAME, VERSION))
    return backend is not None and backend.healthy == 1
