"""The agent behind an Envoy that does nothing but forward: what any Envoy costs, ours not counted."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.serving import processes
from benchmarks.serving.peers import signalbox
from benchmarks.serving.peers.base import Start, Target, Variant, Wire
from control_plane.config import Settings
from control_plane.gateway import envoy_process

TYPES: Final = "type.googleapis.com/envoy.extensions.filters"
NO_HOT_RESTART: Final = ("--disable-hot-restart", "--concurrency", "1", "--log-level", "error")


class BareEnvoy:
    """One listener, one route, one cluster, the router and no other filter, no statistics, no request ids."""

    name = "bare-envoy"
    title = "Signalbox through a bare Envoy"
    wires: frozenset[Wire] = frozenset({"oip_json"})
    variants = (Variant(),)

    def prepare(self, environment: Path) -> None:
        """Nothing to do: it runs in this environment."""

    @contextlib.contextmanager
    def start(self, start: Start) -> Iterator[Target]:
        (port,) = processes.free_ports(1)
        with tempfile.TemporaryDirectory(prefix="sb-") as home:
            target = Target(rest=f"unix:{home}/rest.sock", grpc=f"unix:{home}/grpc.sock")
            path = Path(home) / "envoy.json"
            path.write_text(json.dumps(configuration(port, f"{home}/rest.sock")))
            program = envoy_process.command(Settings(home=Path(home), gateway_port=port))[0]
            command = [program, "-c", path, *NO_HOT_RESTART]
            with (
                signalbox.agent(start, target) as agent,
                processes.running(command, folder=start.folder, core=start.core, name="envoy"),
            ):
                agent.wait_until(lambda: processes.answers(f"http://127.0.0.1:{port}/ready"))
                yield Target(rest=f"127.0.0.1:{port}")


def configuration(port: int, socket: str) -> dict[str, Any]:
    """Return the whole of the bare Envoy's configuration. Pure."""
    manager = {
        "@type": f"{TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bare",
        "generate_request_id": False,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "agent"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPES}.http.router.v3.Router"},
            }
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoint = {"endpoint": {"address": {"pipe": {"path": socket}}}}
    assignment = {"cluster_name": "agent", "endpoints": [{"lb_endpoints": [endpoint]}]}
    return {
        "static_resources": {
            "listeners": [{"address": address, "filter_chains": [chain]}],
            "clusters": [{"name": "agent", "type": "STATIC", "load_assignment": assignment}],
        }
    }
