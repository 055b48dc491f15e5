"""What Envoy's answers say of backends and routes. Pure: documents in, states out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from control_plane.gateway.envoy_bootstrap import ROUTE_CONFIG
from control_plane.gateway.envoy_config import PROTOCOLS, cluster_name, parse_cluster_name
from control_plane.gateway.envoy_statistics import METADATA
from control_plane.gateway.traffic_plan import BackendState, also_reached

Json = dict[str, Any]


def backend_states(clusters: Sequence[Json], stats: Mapping[str, str]) -> dict[tuple[str, str], BackendState]:
    """Return the state of every version of every endpoint.

    clusters: `cluster_statuses` of `/clusters?format=json`; stats: holds `cluster.<name>.upstream_rq_active`.
    """
    by_backend: dict[tuple[str, str], list[Json]] = defaultdict(list)
    for cluster in clusters:
        parsed = parse_cluster_name(cluster["name"])
        if parsed is not None:
            by_backend[parsed[:2]].append(cluster)
    return {backend: _backend_state(both, stats) for backend, both in by_backend.items()}


def _backend_state(both: Sequence[Json], stats: Mapping[str, str]) -> BackendState:
    members = [frozenset(host["hostname"] for host in _hosts(cluster)) for cluster in both]
    return BackendState(
        agents=frozenset.intersection(*members),
        healthy=min(sum(map(_is_healthy, _hosts(cluster))) for cluster in both),
        active_requests=sum(int(stats.get(active_stat(cluster["name"]), 0)) for cluster in both),
    )


def active_stat(cluster: str) -> str:
    """Return the name of the statistic that counts *cluster*'s unanswered requests, removed members' too."""
    return f"cluster.{cluster}.upstream_rq_active"


def _hosts(cluster: Json) -> Sequence[Json]:
    hosts: Sequence[Json] = cluster.get("host_statuses", ())
    return hosts


def _is_healthy(host: Json) -> bool:
    status = host.get("health_status", {})
    return not (status.get("failed_active_health_check") or status.get("pending_active_hc"))


@dataclass(frozen=True, slots=True)
class Routing:
    """What the route configuration in force says of itself: weights and extras as in `GatewayState`."""

    weights: dict[str, dict[str, float]]
    extras: dict[str, str]


NO_ROUTING: Final = Routing({}, {})


def routing_in(route_configs: Sequence[Json]) -> Routing:
    """Return what *route_configs* carry in their metadata."""
    for config in route_configs:
        if config.get("name") == ROUTE_CONFIG:
            held = config.get("metadata", {}).get("filter_metadata", {}).get(METADATA, {})
            shares = {endpoint: dict(shares) for endpoint, shares in held.get("weights", {}).items()}
            return Routing(shares, dict(held.get("extras", {})))
    return NO_ROUTING


def names(clusters: Sequence[Json]) -> set[str]:
    """Return the names of cluster resources."""
    return {cluster["name"] for cluster in clusters}


def targets(routing: Routing) -> set[str]:
    """Return the names of all clusters that requests, or copies of them, can reach by *routing*."""
    reached = {(endpoint, version) for endpoint, shares in routing.weights.items() for version in shares}
    for endpoint, asked in routing.extras.items():
        reached |= {(endpoint, version) for version in also_reached(asked)}
    return {cluster_name(*backend, protocol) for backend in reached for protocol in PROTOCOLS}
