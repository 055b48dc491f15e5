"""Routes of endpoints whose versions are being compared: JSON-ready dicts. Pure.

Requests that the split sends to a version are evidence, and carry the rollout's id. Requests for which
somebody chose the version (a tester's header, the preview path) are none, and do not carry it.
"""

from __future__ import annotations

import re
from typing import Any, Final

from control_plane.gateway import envoy_actions
from control_plane.gateway.envoy_bootstrap import HEADER_TO_METADATA, SESSION_OF_CLIENT, header
from control_plane.gateway.envoy_config import Protocol
from control_plane.gateway.envoy_statistics import METADATA, SESSION
from control_plane.gateway.traffic_plan import Comparison, Sticky, TrafficPlan
from serving_agent.contract.wire import ROLLOUT_HEADER

Json = dict[str, Any]

VERSION_HEADER: Final = "x-signalbox-version"
"""By it testers choose a version: `stable`, `candidate` or a reference `model@N`."""


def evidence(plan: TrafficPlan) -> Json:
    """Return what the route of the split gets, so that its requests are measured and captured."""
    if plan.comparison is None:
        return {}
    marked: Json = {"request_headers_to_add": [header(ROLLOUT_HEADER, plan.comparison.rollout)]}
    if plan.sticky is not None:
        marked["typed_per_filter_config"] = {SESSION_OF_CLIENT: _session_in(plan.sticky)}
    return marked


def of_step(plan: TrafficPlan) -> Json:
    """Return the metadata that tell in which step of a rollout a request was routed."""
    return {"step": plan.comparison.step} if plan.comparison is not None else {}


def _session_in(sticky: Sticky) -> Json:
    """Where the client names its session; it names none with an empty header or cookie."""
    found = {"metadata_namespace": METADATA, "key": SESSION}
    rule = {sticky.kind: sticky.name, "on_header_present": found}
    return {"@type": HEADER_TO_METADATA, "request_rules": [rule]}


def for_testers(plan: TrafficPlan, match: Json, protocol: Protocol) -> list[tuple[Json, Json]]:
    """Return (match, action) of the routes before the split; none unless *plan* lets testers choose."""
    comparison = plan.comparison
    if comparison is None or not comparison.tester_header:
        return []
    return [
        (
            {**match, "headers": [*match.get("headers", ()), _asks_for(word, version)]},
            envoy_actions.only(plan, version, protocol),
        )
        for word, version in _choices(comparison)
    ]


def _choices(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    return ("stable", comparison.stable), ("candidate", comparison.candidate)


def _asks_for(word: str, version: str) -> Json:
    either = {"regex": f"{word}|{re.escape(version)}"}
    return {"name": VERSION_HEADER, "string_match": {"safe_regex": either}}


def preview(plan: TrafficPlan) -> Json | None:
    """Return the action of the preview path, which only the candidate answers; None without a candidate."""
    if plan.comparison is None:
        return None
    return envoy_actions.only(plan, plan.comparison.candidate, "http")
