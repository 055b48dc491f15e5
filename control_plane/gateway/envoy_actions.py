"""Where a route sends its requests, as Envoy's route actions: JSON-ready dicts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from control_plane.gateway.envoy_config import Protocol, cluster_name
from control_plane.gateway.traffic_plan import Backend, Mirror, Sticky, TrafficPlan

Json = dict[str, Any]

WEIGHT_PARTS: Final = 10_000
"""Envoy's integer weights of one endpoint add up to this (basis points)."""
MAX_RETRIES: Final = 3

_TYPE = "type.googleapis.com/"


def weighted(plan: TrafficPlan) -> list[Backend]:
    """Return the backends that requests go to, always in the same order: then sticky clients stay put."""
    chosen = [backend for backend in plan.backends if backend.weight > 0]
    return sorted(chosen, key=lambda backend: backend.version)


def split(plan: TrafficPlan, protocol: Protocol) -> Json:
    """Return the action that splits requests by weight, with the copies and stickiness *plan* asks for."""
    chosen = weighted(plan)
    parts = integer_weights([backend.weight for backend in chosen])
    names = [cluster_name(plan.endpoint, backend.version, protocol) for backend in chosen]
    action = by_parts(dict(zip(names, parts, strict=True)), plan.timeout_s)
    if plan.sticky is not None:
        action["weighted_clusters"]["use_hash_policy"] = True
        action["hash_policy"] = [_hash_of(plan.sticky)]
    if plan.mirror is not None:
        action["request_mirror_policies"] = [_copies(plan.endpoint, plan.mirror, protocol)]
    return action


def only(plan: TrafficPlan, version: str, protocol: Protocol) -> Json:
    """Return the action that sends every request to one version."""
    return by_parts({cluster_name(plan.endpoint, version, protocol): WEIGHT_PARTS}, plan.timeout_s)


def by_parts(parts: Mapping[str, int], timeout_s: float) -> Json:
    """Return the action that chooses among clusters by integer weight."""
    return {
        "weighted_clusters": {"clusters": [{"name": name, "weight": part} for name, part in parts.items()]},
        "timeout": f"{timeout_s:g}s",
    }


def integer_weights(shares: Sequence[float]) -> list[int]:
    """Return *shares* (each > 0) as integers that add up to WEIGHT_PARTS, none of them 0.

    Largest-remainder rounding, after the shares are scaled to add up to 1.
    """
    total = sum(shares)
    exact = [share / total * WEIGHT_PARTS for share in shares]
    parts = [max(1, int(value)) for value in exact]
    by_remainder = sorted(range(len(parts)), key=lambda i: exact[i] - parts[i], reverse=True)
    missing = WEIGHT_PARTS - sum(parts)
    for i in by_remainder[: max(0, missing)]:
        parts[i] += 1
    parts[parts.index(max(parts))] += min(0, missing)
    return parts


def _hash_of(sticky: Sticky) -> Json:
    if sticky.kind == "cookie":
        return {"cookie": {"name": sticky.name}}
    return {"header": {"header_name": sticky.name}}


def _copies(endpoint: str, mirror: Mirror, protocol: Protocol) -> Json:
    parts = max(1, round(mirror.share * WEIGHT_PARTS))
    return {
        "cluster": cluster_name(endpoint, mirror.version, protocol),
        "runtime_fraction": {"default_value": {"numerator": parts, "denominator": "TEN_THOUSAND"}},
        "disable_shadow_host_suffix_append": True,
    }


def retry_pure() -> Json:
    """Retry as stateless inference allows: connection failures and 503, on another agent or version.

    Once for all routes: repeated in each of them it would be most of what Envoy has to read.
    """
    return {
        "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes,unavailable",
        "retriable_status_codes": [503],
        "num_retries": MAX_RETRIES,
        "refresh_cluster_on_retry": True,
        "host_selection_retry_max_attempts": 5,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": _TYPE + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
    }
