"""The local gateway: Envoy, told by files and asked over its admin socket.

The gateway's state is on disk and in Envoy, none of it in this object: a restarted controller goes on where
the old one was killed, and a restarted Envoy serves from the same files. While Envoy is down nothing is
written: `publish_*` fail at once and the last confirmed configuration is what it starts with.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from control_plane.config import Settings
from control_plane.errors import UnavailableError
from control_plane.gateway import envoy_config, envoy_process, envoy_routes, envoy_state
from control_plane.gateway.envoy_admin import EnvoyAdmin
from control_plane.gateway.envoy_bootstrap import ROUTE_CONFIG
from control_plane.gateway.envoy_files import LONGEST_REASON, DiscoveryFile, gateway_files, publishing
from control_plane.gateway.envoy_state import Routing
from control_plane.gateway.envoy_statistics import STATS_SCOPE
from control_plane.gateway.traffic_plan import GatewayState, TrafficPlan

Json = dict[str, Any]

VALIDATE_TIMEOUT_S: Final = 20.0
_SERVER_STATE: Final = "server.state"
_LISTENERS: Final = "listener_manager.total_listeners_active"
_LIVE: Final = "0"


class EnvoyGateway:
    """`base.Gateway` over the Envoy of one home folder. Thread-safe: publishers take turns by a lock file."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._files = gateway_files(settings)
        self._admin = EnvoyAdmin(self._files.admin_socket)
        self._cds = self._discovery_file(self._files.cds, "cluster_manager.cds")
        self._rds = self._discovery_file(self._files.rds, f"http.{ROUTE_CONFIG}.rds.{ROUTE_CONFIG}")
        self._problem: str | None = None
        self._routing: tuple[str, Routing] = ("", envoy_state.NO_ROUTING)
        self._known: tuple[str, frozenset[str]] = ("", frozenset())

    def publish_backends(self, plans: Sequence[TrafficPlan]) -> None:
        """Make exactly the backends of *plans* known.

        Raises UnavailableError, also when it would forget a backend that requests still go to: publish routes
        without it first.
        """
        self._publish(self._cds, envoy_config.clusters(plans), self._check_clusters)

    def publish_routes(self, plans: Sequence[TrafficPlan]) -> None:
        """Send requests by the weights of *plans*. Raises UnavailableError, also for an unknown backend."""
        self._publish(self._rds, envoy_routes.routes(plans), self._check_routes)

    def observe(self) -> GatewayState:
        """Say what is in force; `live=False` when Envoy does not answer or does not own its port."""
        try:
            stats = self._admin.stats(self._observed_stats())
            backends = envoy_state.backend_states(self._admin.clusters(), stats)
            routing = self._routing_in_force(stats.get(self._rds.version_stat, ""))
        except UnavailableError as error:
            return GatewayState(live=False, backends={}, weights={}, problem=error.message)
        live = stats.get(_SERVER_STATE) == _LIVE and stats.get(_LISTENERS, "0") != "0"
        return GatewayState(
            live=live,
            backends=backends,
            weights={endpoint: dict(shares) for endpoint, shares in routing.weights.items()},
            extras=dict(routing.extras),
            problem=self._problem_of(stats),
        )

    def metrics(self) -> str:
        """Return the per-request statistics in Prometheus' text format. Raises UnavailableError."""
        return self._admin.prometheus(f"^{STATS_SCOPE}")

    def reopen_logs(self) -> None:
        """Make Envoy write its access logs to files of their old names. Raises UnavailableError."""
        self._admin.reopen_logs()

    def _discovery_file(self, path: Path, stat_prefix: str) -> DiscoveryFile:
        return DiscoveryFile(path, stat_prefix, self._admin, self._files.log)

    def _publish(
        self, file: DiscoveryFile, resources: list[Json], check: Callable[[Sequence[Json]], None]
    ) -> None:
        try:
            with publishing(self._files):
                file.publish(resources, check)
        except OSError as error:
            self._problem = f"the gateway's files cannot be written: {error.strerror}"
            next_step = "Free disk space, or mend the home folder."
            raise UnavailableError(self._problem, next_step=next_step) from error
        except UnavailableError as error:
            self._problem = error.message
            raise
        self._problem = None

    def _check_clusters(self, clusters: Sequence[Json]) -> None:
        lost = envoy_state.targets(self._routing_written()) - envoy_state.names(clusters)
        if lost:
            raise UnavailableError(f"requests are still routed to {_listed(lost)}; publish routes first")
        accepted = {cluster["name"]: cluster for cluster in self._cds.in_force()}
        changed = [cluster for cluster in clusters if accepted.get(cluster["name"]) != cluster]
        if changed:
            validate_clusters(self._settings, changed)

    def _check_routes(self, routes: Sequence[Json]) -> None:
        unknown = envoy_state.targets(envoy_state.routing_in(routes)) - self._names_written()
        if unknown:
            raise UnavailableError(f"the gateway does not know {_listed(unknown)}; publish backends first")

    def _routing_written(self) -> Routing:
        return envoy_state.routing_in(self._rds.resources())

    def _names_written(self) -> frozenset[str]:
        """Clusters of the file, which is read once for each version: it is long, and routes change often."""
        version = self._cds.version()
        if version != self._known[0]:
            self._known = version, frozenset(envoy_state.names(self._cds.resources()))
        return self._known[1]

    def _observed_stats(self) -> str:
        names = (_SERVER_STATE, _LISTENERS, self._rds.version_stat)
        return "|".join([*map(re.escape, names), envoy_state.active_stat("").replace("..", r"\..+\.")])

    def _routing_in_force(self, version: str) -> Routing:
        if version != self._routing[0]:
            self._routing = version, envoy_state.routing_in(self._admin.route_configs())
        return self._routing[1]

    def _problem_of(self, stats: dict[str, str]) -> str | None:
        if stats.get(_SERVER_STATE) == _LIVE and stats.get(_LISTENERS, "0") == "0":
            return f"Envoy does not hold port {self._settings.gateway_port}: another program uses it"
        return self._problem


def _listed(clusters: set[str]) -> str:
    return ", ".join(sorted(clusters))


def validate_clusters(settings: Settings, clusters: Sequence[Json]) -> None:
    """Let Envoy itself judge *clusters* before they are written: of refused ones it would take the good part.

    Takes about 0.1 s, and seconds for thousands. Raises UnavailableError with Envoy's reason.
    """
    static = [{key: value for key, value in cluster.items() if key != "@type"} for cluster in clusters]
    with tempfile.NamedTemporaryFile("w", suffix=".json", dir=settings.gateway_dir) as file:
        json.dump({"static_resources": {"clusters": static}}, file)
        file.flush()
        arguments = ["--mode", "validate", "-c", file.name, "--log-level", "error", "--disable-hot-restart"]
        finished = _run_envoy(settings, arguments)
    if finished.returncode != 0:
        raise UnavailableError(f"Envoy refused the change: {validation_reason(finished.stderr)}")


def _run_envoy(settings: Settings, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603  our own binary and arguments
            [str(envoy_process.binary(settings)), *arguments],
            capture_output=True, text=True, timeout=VALIDATE_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"Envoy did not check the change within {VALIDATE_TIMEOUT_S:g} s") from error


def validation_reason(stderr: str) -> str:
    """Return the sentence in which `envoy --mode validate` says what it does not accept."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return lines[-1][-LONGEST_REASON:] if lines else "it does not say why"
