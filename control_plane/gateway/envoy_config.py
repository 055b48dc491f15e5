"""Traffic plans as Envoy clusters, and discovery files: JSON-ready dicts.

Pure: plans in, dicts out; no clock, no I/O, no logging. A version of an endpoint is one cluster per protocol,
with its agents inline (STATIC): Envoy opens an inotify instance per endpoint file, and aborts when they run
out. The route table is in `envoy_routes`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import orjson

from control_plane.gateway.envoy_bootstrap import REQUEST_BUFFER_BYTES
from control_plane.gateway.envoy_statistics import METADATA
from control_plane.gateway.traffic_plan import Backend, Replica, TrafficPlan

Json = dict[str, Any]
Protocol = Literal["http", "grpc"]
PROTOCOLS: Final[tuple[Protocol, Protocol]] = ("http", "grpc")

MAX_COPIES: Final = 64
"""Copies under way at a version that gets nothing else; more are not sent."""

_TYPE = "type.googleapis.com/"


def cluster_name(endpoint: str, version: str, protocol: Protocol) -> str:
    """Return the name of a version's cluster: `<endpoint>~<model@N>`, with `~grpc` behind it for gRPC."""
    return f"{endpoint}~{version}" + ("~grpc" if protocol == "grpc" else "")


def parse_cluster_name(name: str) -> tuple[str, str, Protocol] | None:
    """Return (endpoint, version, protocol), or None when *name* is no cluster of ours."""
    endpoint, _, rest = name.partition("~")
    version, _, suffix = rest.partition("~")
    if not endpoint or not version or suffix not in ("", "grpc"):
        return None
    return endpoint, version, "grpc" if suffix else "http"


def clusters(plans: Iterable[TrafficPlan]) -> list[Json]:
    """Return two clusters (REST and gRPC) for every version of every endpoint, in order of name.

    A version without agents has clusters without members.
    """
    return [
        _cluster(plan, backend, protocol)
        for plan in sorted(plans, key=lambda plan: plan.endpoint)
        for backend in sorted(plan.backends, key=lambda backend: backend.version)
        for protocol in PROTOCOLS
    ]


def _cluster(plan: TrafficPlan, backend: Backend, protocol: Protocol) -> Json:
    name = cluster_name(plan.endpoint, backend.version, protocol)
    tags = {"endpoint": plan.endpoint, "version": backend.version, "protocol": protocol}
    return {
        "@type": _TYPE + "envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "metadata": {"filter_metadata": {METADATA: tags}},
        "load_assignment": {"cluster_name": name, "endpoints": _members(backend.replicas, protocol)},
        "health_checks": [_health_check(protocol)],
        "ignore_health_on_host_removal": True,
        # panic (send to everyone) only when nobody is healthy: then a retry may pick another version
        "common_lb_config": {"healthy_panic_threshold": {"value": 1.0}},
        "outlier_detection": _outlier_detection(),
        "circuit_breakers": {"thresholds": [_breaker(only_copies=_gets_only_copies(plan, backend))]},
        **_room_for_copies(plan, backend),
        "typed_extension_protocol_options": _upstream_options(protocol),
    }


def _members(replicas: Sequence[Replica], protocol: Protocol) -> list[Json]:
    if not replicas:
        return []
    ordered = sorted(replicas, key=lambda replica: replica.agent_id)
    return [{"lb_endpoints": [{"endpoint": _member(replica, protocol)} for replica in ordered]}]


def _member(replica: Replica, protocol: Protocol) -> Json:
    text = replica.grpc_address if protocol == "grpc" else replica.rest_address
    # `/clusters` of the admin interface repeats the host name, so a member can be told from its address
    return {"hostname": replica.agent_id, "address": address(text)}


def address(text: str) -> Json:
    """Return `unix:/path` or `host:port` as an Envoy address. Raises ValueError for anything else."""
    if text.startswith("unix:"):
        return {"pipe": {"path": text.removeprefix("unix:")}}
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdecimal():
        raise ValueError(f"{text!r} is neither unix:/path nor host:port")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _health_check(protocol: Protocol) -> Json:
    probe: Json = {"grpc_health_check": {}} if protocol == "grpc" else {"http_health_check": _ready_probe()}
    return {
        "timeout": "1s",
        "interval": "1s",
        # without it a cluster that has had no request yet is checked once a minute
        "no_traffic_interval": "1s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "always_log_health_check_failures": False,
        **probe,
    }


def _ready_probe() -> Json:
    return {"host": "agent", "path": "/ready"}


def _outlier_detection() -> Json:
    """Eject an agent after two failed connections; answers of the agent, 5xx included, never eject it."""
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 2,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "enforcing_failure_percentage": 0,
        "interval": "1s",
        "base_ejection_time": "2s",
        "max_ejection_time": "10s",
        "max_ejection_percent": 100,
    }


def _gets_copies(plan: TrafficPlan, backend: Backend) -> bool:
    return plan.mirror is not None and plan.mirror.version == backend.version


def _gets_only_copies(plan: TrafficPlan, backend: Backend) -> bool:
    return _gets_copies(plan, backend) and backend.weight <= 0


def _room_for_copies(plan: TrafficPlan, backend: Backend) -> Json:
    """Let a whole copy wait in memory: with less room, one that is not taken would hold up the original."""
    return {"per_connection_buffer_limit_bytes": REQUEST_BUFFER_BYTES} if _gets_copies(plan, backend) else {}


def _breaker(*, only_copies: bool) -> Json:
    """Bounds on one version; Envoy's default of 3 concurrent retries would drop them silently.

    A version that only gets copies is held to far less: a slow or hung one must not fill the gateway.
    """
    most = MAX_COPIES if only_copies else 4096
    return {
        "max_connections": most,
        "max_pending_requests": most,
        "max_requests": most,
        "max_retries": 1000,
    }


def _upstream_options(protocol: Protocol) -> Json:
    explicit: Json = {"http2_protocol_options": {}} if protocol == "grpc" else {"http_protocol_options": {}}
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": _TYPE + "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            # below the agents' keep-alive of 120 s: Envoy, not the agent, closes idle connections
            "common_http_protocol_options": {"idle_timeout": "30s"},
            "explicit_http_config": explicit,
        }
    }


def content_digest(resources: Sequence[Json]) -> str:
    """Return the first 8 hex digits of the sha256 of *resources*, whatever the order of their keys."""
    return hashlib.sha256(orjson.dumps(resources, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]


def resource_file(resources: Sequence[Json], counter: int) -> Json:
    """Return a discovery response as Envoy reads it from a file; its version is `<counter>-<digest>`."""
    return {"version_info": f"{counter}-{content_digest(resources)}", "resources": list(resources)}
