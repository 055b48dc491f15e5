"""Traffic plans as Envoy's route table: JSON-ready dicts.

Pure: plans in, dicts out; no clock, no I/O, no logging. One tree over the path finds an endpoint whatever
their number; Envoy takes the first route that matches: the order in a list is the order of choice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from control_plane.gateway import envoy_actions, envoy_comparison
from control_plane.gateway.envoy_bootstrap import (
    CHOOSE_AGAIN,
    ENDPOINT_OF_PATH,
    FIELD_EXTRACTION,
    GRPC_SERVICE,
    REQUEST_BUFFER_BYTES,
    RETRY_AFTER_S,
    ROUTE_CONFIG,
    header,
    model_fields,
)
from control_plane.gateway.envoy_config import Protocol, cluster_name
from control_plane.gateway.envoy_statistics import METADATA
from control_plane.gateway.traffic_plan import TrafficPlan, extras
from serving_agent.contract.wire import EXTENSIONS

Json = dict[str, Any]

ENDPOINT_HEADER: Final = "x-endpoint"
"""gRPC metadata that names the endpoint."""
SERVER_CALL_S: Final = 10.0
MAX_SERVER_CLUSTERS: Final = 16
"""At most so many versions stand behind calls that name no endpoint (ServerLive, health)."""

_TYPE = "type.googleapis.com/"
_HEALTH_SERVICE: Final = "grpc.health.v1.Health"
_REPOSITORY_EXTENSION: Final = "model_repository"
"""Agents answer it, each for its one model; the gateway refuses it."""


def routes(plans: Iterable[TrafficPlan]) -> list[Json]:
    """Return the one route configuration.

    REST goes by path (`/e/<endpoint>/…`, `/v2/models/<endpoint>/…`; `/preview/<endpoint>/…` to a candidate);
    gRPC by metadata `x-endpoint`, then by the request's model name; gRPC calls about the server itself go to
    any version; everything else is 404.
    """
    ordered = sorted(plans, key=lambda plan: plan.endpoint)
    host = {
        "name": ROUTE_CONFIG,
        "domains": ["*"],
        "request_body_buffer_limit": REQUEST_BUFFER_BYTES,
        "retry_policy": envoy_actions.retry_pure(),
        "matcher": _by_path(ordered),
    }
    return [
        {
            "@type": _TYPE + "envoy.config.route.v3.RouteConfiguration",
            "name": ROUTE_CONFIG,
            "validate_clusters": True,
            "metadata": {"filter_metadata": {METADATA: _in_force(ordered)}},
            "virtual_hosts": [host],
        }
    ]


def _in_force(plans: Sequence[TrafficPlan]) -> Json:
    """What the gateway is asked later: Envoy keeps it beside the routes that follow from it."""
    return {"weights": weights(plans), "extras": {plan.endpoint: extras(plan) for plan in plans}}


def weights(plans: Iterable[TrafficPlan]) -> dict[str, dict[str, float]]:
    """Return the shares in force once *plans* are: by endpoint, then version; shares of 0 are left out."""
    return {
        plan.endpoint: {backend.version: backend.weight for backend in envoy_actions.weighted(plan)}
        for plan in plans
    }


def _by_path(plans: Sequence[TrafficPlan]) -> Json:
    """Return a tree over the path: one look-up however many endpoints there are."""
    branches: Json = {
        "/e/": _then(_unknown_endpoint()),
        "/v2/models/": _then(_unknown_endpoint()),
        "/v2": _then(*_server_routes()),
        f"/{GRPC_SERVICE}/": _by_metadata(plans, _named_in_request(plans)),
        f"/{_HEALTH_SERVICE}/": _by_metadata(plans, [_any_version(plans, f"/{_HEALTH_SERVICE}/")]),
    }
    for plan in plans:
        for prefix in (f"/e/{plan.endpoint}", f"/v2/models/{plan.endpoint}"):
            # `/e/ab` also starts with `/e/a`: the branch of `a` must know what to say of other names
            branches[prefix] = _then(*_rest_routes(plan, prefix), _unknown_endpoint())
    branches |= _preview_branches(plans)
    return {
        "matcher_tree": {"input": _header_input(":path"), "prefix_match_map": {"map": branches}},
        "on_no_match": _then(_root_route(), _unknown_path()),
    }


def _by_metadata(plans: Sequence[TrafficPlan], otherwise: list[Json]) -> Json:
    """Return a tree over the metadata `x-endpoint`; without it, *otherwise* decides."""
    rest = _then(_unknown_metadata(), *otherwise)
    named = {plan.endpoint: _then(*_grpc_routes(plan)) for plan in plans}
    if not named:
        return rest
    tree = {"input": _header_input(ENDPOINT_HEADER), "exact_match_map": {"map": named}}
    return {"matcher": {"matcher_tree": tree, "on_no_match": rest}}


def _header_input(name: str) -> Json:
    return {
        "name": "header",
        "typed_config": {
            "@type": _TYPE + "envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
            "header_name": name,
        },
    }


def _then(*chosen: Json) -> Json:
    return {
        "action": {
            "name": "routes",
            "typed_config": {"@type": _TYPE + "envoy.config.route.v3.RouteList", "routes": list(chosen)},
        }
    }


def _rest_routes(plan: TrafficPlan, prefix: str) -> list[Json]:
    return _endpoint_routes(plan, {"path_separated_prefix": prefix}, "http", _to_agent(prefix))


def _grpc_routes(plan: TrafficPlan, **match: Any) -> list[Json]:
    return _endpoint_routes(plan, {"prefix": "/", "grpc": {}, **match}, "grpc", {})


def _endpoint_routes(plan: TrafficPlan, match: Json, protocol: Protocol, rewrite: Json) -> list[Json]:
    """Return the routes of one endpoint that *match*: testers choose first, the rest is split."""
    chosen = [
        {**_named(plan), "match": narrower, "route": {**action, **rewrite}}
        for narrower, action in envoy_comparison.for_testers(plan, match, protocol)
    ]
    if not envoy_actions.weighted(plan):
        return [*chosen, {**_named(plan), "match": match, **_no_agent(plan)}]
    action = envoy_actions.split(plan, protocol)
    evidence = envoy_comparison.evidence(plan)
    return [*chosen, {**_named(plan), "match": match, **evidence, "route": {**action, **rewrite}}]


def _preview_branches(plans: Sequence[TrafficPlan]) -> Json:
    branches: Json = {"/preview/": _then(_unknown_preview())}
    for plan in plans:
        action = envoy_comparison.preview(plan)
        if action is not None:
            prefix = f"/preview/{plan.endpoint}"
            match = {"path_separated_prefix": prefix}
            route = {**_named(plan), "match": match, "route": {**action, **_to_agent(prefix)}}
            branches[prefix] = _then(route, _unknown_preview())
    return branches


def _to_agent(prefix: str) -> Json:
    """Agents know no endpoint: take it off the path, where it is not part of the protocol itself."""
    if prefix.startswith("/v2/"):
        return {}
    pattern = {"regex": r"^/(?:e|preview)/[^/]+/?(.*)$"}
    return {"regex_rewrite": {"pattern": pattern, "substitution": r"/\1"}}


def _named_in_request(plans: Sequence[TrafficPlan]) -> list[Json]:
    """Routes by the model's name in the message; the last one reads it, after which Envoy chooses again."""
    by_name = [
        route
        for plan in plans
        for field in model_fields()
        for route in _grpc_routes(plan, dynamic_metadata=[_extracted(field, plan.endpoint)])
    ]
    server_calls = [
        _any_version(plans, f"/{GRPC_SERVICE}/{method}")
        for method in ("ServerLive", "ServerReady", "ServerMetadata")
    ]
    refused = [
        _refused_call(f"/{GRPC_SERVICE}/{method}", _NOT_HERE)
        for method in ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload")
    ]
    return [*by_name, *server_calls, *refused, _compressed_call(), _unknown_model()]


def _extracted(field: str, endpoint: str) -> Json:
    return {
        "filter": FIELD_EXTRACTION,
        "path": [{"key": field}],
        "value": {"list_match": {"one_of": {"string_match": {"exact": endpoint}}}},
    }


def _named(plan: TrafficPlan) -> Json:
    told = {"endpoint": plan.endpoint, **envoy_comparison.of_step(plan)}
    return {"name": plan.endpoint, "metadata": {"filter_metadata": {METADATA: told}}}


def _no_agent(plan: TrafficPlan) -> Json:
    return {
        "response_headers_to_add": [header("retry-after", str(RETRY_AFTER_S))],
        "direct_response": _reply(503, f"endpoint {plan.endpoint} has no ready agent"),
    }


def _any_version(plans: Sequence[TrafficPlan], prefix: str) -> Json:
    """Answer calls that name no endpoint by any version: the server lives as long as one of them does."""
    match = {"prefix": prefix, "grpc": {}}
    names = [
        cluster_name(plan.endpoint, backend.version, "grpc")
        for plan in plans
        for backend in envoy_actions.weighted(plan)
        if backend.replicas
    ]
    if not names:
        return {"match": match, "direct_response": _reply(503, "no endpoint is deployed")}
    parts = dict.fromkeys(names[:MAX_SERVER_CLUSTERS], 1)
    return {"match": match, "route": envoy_actions.by_parts(parts, SERVER_CALL_S)}


def _reply(status: int, body: str) -> Json:
    return {"status": status, "body": {"inline_string": body}}


def _server_routes() -> list[Json]:
    """The protocol's calls about the server itself, which here is the gateway."""
    extensions = [name for name in EXTENSIONS if name != _REPOSITORY_EXTENSION]
    answers: dict[str, Json] = {
        "/v2": {"name": "signalbox", "version": "2", "extensions": extensions},
        "/v2/": {"name": "signalbox", "version": "2", "extensions": extensions},
        "/v2/health/live": {"live": True},
        "/v2/health/ready": {"ready": True},
    }
    return [*(_json_route(path, body) for path, body in answers.items()), _repository(), _unknown_path()]


def _root_route() -> Json:
    return _json_route("/", {"name": "signalbox gateway", "call": "/e/<endpoint>/predict"})


def _json_route(path: str, body: Json) -> Json:
    return {
        "match": {"path": path},
        "response_headers_to_add": [header("content-type", "application/json")],
        "direct_response": _reply(200, json.dumps(body)),
    }


def _unknown_endpoint() -> Json:
    return {
        "match": {"prefix": "/"},
        "typed_per_filter_config": {ENDPOINT_OF_PATH: _enabled()},
        "direct_response": _formatted(404, f"no endpoint named %DYNAMIC_METADATA({METADATA}:endpoint)%"),
    }


def _formatted(status: int, text: str) -> Json:
    return {"status": status, "body_format": {"text_format_source": {"inline_string": text}}}


def _unknown_preview() -> Json:
    sentence = f"no version of an endpoint named %DYNAMIC_METADATA({METADATA}:endpoint)% is being previewed"
    return {**_unknown_endpoint(), "direct_response": _formatted(404, sentence)}


def _repository() -> Json:
    return {"match": {"prefix": "/v2/repository/"}, "direct_response": _reply(405, _NOT_HERE)}


def _refused_call(path: str, sentence: str) -> Json:
    return {
        "match": {"path": path, "grpc": {}},
        "response_headers_to_add": [_UNIMPLEMENTED],
        "direct_response": _reply(405, sentence),
    }


def _compressed_call() -> Json:
    """Refuse a compressed message that only its model name could route: the name cannot be read in it.

    By the header alone: whether this message is compressed stands in its first byte, which no route sees.
    """
    packed = {"name": "grpc-encoding", "string_match": {"safe_regex": {"regex": "gzip|deflate"}}}
    sentence = "a compressed message cannot be routed by its model_name: send metadata x-endpoint with it"
    return {
        "match": {"prefix": "/", "grpc": {}, "headers": [packed]},
        "response_headers_to_add": [_UNIMPLEMENTED],
        "direct_response": _reply(405, sentence),
    }


def _unknown_path() -> Json:
    sentence = "nothing answers at this path: call /e/<endpoint>/predict or /v2/models/<endpoint>/infer"
    return {"match": {"prefix": "/"}, "direct_response": _reply(404, sentence)}


def _unknown_metadata() -> Json:
    return {
        "match": {"prefix": "/", "headers": [{"name": ENDPOINT_HEADER, "present_match": True}]},
        "response_headers_to_add": [_NOT_FOUND],
        "direct_response": _formatted(404, f"no endpoint named %REQ({ENDPOINT_HEADER})%"),
    }


def _unknown_model() -> Json:
    sentence = "no endpoint has this model name: send its name as model_name or as metadata x-endpoint"
    return {
        "match": {"prefix": "/"},
        "typed_per_filter_config": {FIELD_EXTRACTION: _enabled(), CHOOSE_AGAIN: _enabled()},
        "response_headers_to_add": [_NOT_FOUND],
        "direct_response": _reply(404, sentence),
    }


_NOT_FOUND: Final = header("grpc-status", "5")
"""gRPC's NOT_FOUND; Envoy alone would turn 404 into UNIMPLEMENTED."""
_UNIMPLEMENTED: Final = header("grpc-status", "12")
_NOT_HERE: Final = (
    "the control plane owns endpoints and versions: see `signalbox status` for what is served, and change it "
    "with `signalbox deploy`"
)


def _enabled() -> Json:
    return {"@type": _TYPE + "envoy.config.route.v3.FilterConfig", "config": {}}
