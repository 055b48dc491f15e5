"""Plans as Envoy's clusters and routes, without Envoy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.gateway import envoy_actions, envoy_config, envoy_files, envoy_routes, envoy_state
from control_plane.gateway.envoy import validation_reason
from control_plane.gateway.traffic_plan import (
    Backend,
    Comparison,
    Mirror,
    Replica,
    Sticky,
    TrafficPlan,
    extras,
)

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
versions = st.builds("{}@{}".format, labels, st.integers(1, 9999))
shares = st.floats(0.0, 1.0).filter(lambda share: share == 0 or share > 1e-6)


@st.composite
def plans(draw: st.DrawFn) -> list[TrafficPlan]:
    endpoints = draw(st.lists(labels, max_size=4, unique=True))
    return [draw(one_plan(endpoint)) for endpoint in endpoints]


@st.composite
def one_plan(draw: st.DrawFn, endpoint: str) -> TrafficPlan:
    chosen = draw(backends())
    if len(chosen) < 2:
        return TrafficPlan(endpoint, chosen)
    stable, candidate = chosen[0].version, chosen[1].version
    compared = Comparison(rollout="r1", stable=stable, candidate=candidate, tester_header=draw(st.booleans()))
    return TrafficPlan(
        endpoint,
        chosen,
        mirror=draw(st.none() | st.just(Mirror(candidate, 0.5))),
        sticky=draw(st.none() | st.just(Sticky("header", "user"))),
        comparison=draw(st.none() | st.just(compared)),
    )


@st.composite
def backends(draw: st.DrawFn) -> tuple[Backend, ...]:
    chosen = draw(st.lists(versions, max_size=3, unique=True))
    replicas = st.lists(labels, max_size=2, unique=True)
    return tuple(Backend(version, replicas_of(draw(replicas)), draw(shares)) for version in chosen)


def replicas_of(agents: list[str]) -> tuple[Replica, ...]:
    return tuple(Replica(agent, f"unix:/{agent}.rest", f"unix:/{agent}.grpc") for agent in agents)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=8))
def test_integer_weights_add_up_and_lose_nobody(wanted: list[float]) -> None:
    parts = envoy_actions.integer_weights(wanted)

    assert sum(parts) == envoy_actions.WEIGHT_PARTS
    assert min(parts) >= 1
    exact = [share / sum(wanted) * envoy_actions.WEIGHT_PARTS for share in wanted]
    assert all(abs(part - value) < len(wanted) + 1 for part, value in zip(parts, exact, strict=True))


@pytest.mark.parametrize(
    ("wanted", "parts"),
    [([1.0], [10000]), ([0.95, 0.05], [9500, 500]), ([1, 1, 1], [3334, 3333, 3333]), ([1, 1e-9], [9999, 1])],
)
def test_integer_weights_of_everyday_shares(wanted: list[float], parts: list[int]) -> None:
    assert envoy_actions.integer_weights(wanted) == parts


@given(labels, versions, st.sampled_from(["http", "grpc"]))
def test_cluster_names_can_be_read_back(endpoint: str, version: str, protocol: envoy_config.Protocol) -> None:
    name = envoy_config.cluster_name(endpoint, version, protocol)

    assert envoy_config.parse_cluster_name(name) == (endpoint, version, protocol)


@pytest.mark.parametrize("name", ["", "other", "~digits@1", "digits~", "digits~digits@1~other"])
def test_other_clusters_are_not_ours(name: str) -> None:
    assert envoy_config.parse_cluster_name(name) is None


@given(plans())
def test_routes_send_only_to_clusters_of_the_same_plans(made: list[TrafficPlan]) -> None:
    known = envoy_state.names(envoy_config.clusters(made))
    routes = envoy_routes.routes(made)

    told = envoy_state.targets(envoy_state.routing_in(routes))
    assert set(clusters_named(routes)) <= told <= known


def clusters_named(node: Any) -> Iterator[str]:
    """Every cluster that any part of a route table names."""
    if isinstance(node, list):
        for item in node:
            yield from clusters_named(item)
    elif isinstance(node, dict):
        yield from (cluster["name"] for cluster in node.get("weighted_clusters", {}).get("clusters", ()))
        yield from (copies["cluster"] for copies in node.get("request_mirror_policies", ()))
        for item in node.values():
            yield from clusters_named(item)


@given(plans())
def test_every_version_is_a_cluster_for_each_protocol(made: list[TrafficPlan]) -> None:
    names = [cluster["name"] for cluster in envoy_config.clusters(made)]

    assert len(names) == len(set(names)) == 2 * sum(len(plan.backends) for plan in made)


@given(plans())
def test_order_of_plans_does_not_matter(made: list[TrafficPlan]) -> None:
    assert envoy_config.clusters(made) == envoy_config.clusters(made[::-1])
    assert envoy_routes.routes(made) == envoy_routes.routes(made[::-1])


@given(plans())
def test_the_weights_in_force_are_read_from_the_routes_themselves(made: list[TrafficPlan]) -> None:
    through_json = json.loads(json.dumps(envoy_routes.routes(made)))

    routing = envoy_state.routing_in(through_json)
    assert routing.weights == envoy_routes.weights(made)
    assert routing.extras == {plan.endpoint: extras(plan) for plan in made}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:/run/a.rest", {"pipe": {"path": "/run/a.rest"}}),
        ("127.0.0.1:81", {"socket_address": {"address": "127.0.0.1", "port_value": 81}}),
    ],
)
def test_addresses(text: str, expected: dict[str, object]) -> None:
    assert envoy_config.address(text) == expected


@pytest.mark.parametrize("text", ["", "host", "host:", ":80", "host:port"])
def test_unusable_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        envoy_config.address(text)


def test_a_file_is_named_after_its_content() -> None:
    one, other = envoy_config.clusters([TrafficPlan("a", ())]), envoy_routes.routes([])

    assert envoy_config.resource_file(one, 3)["version_info"] == f"3-{envoy_config.content_digest(one)}"
    assert envoy_config.content_digest(one) != envoy_config.content_digest(other)
    assert envoy_config.content_digest([{"a": 1, "b": 2}]) == envoy_config.content_digest([{"b": 2, "a": 1}])


@pytest.mark.parametrize(("seen", "expected"), [((), 1), (("",), 1), (("7-abc", "3-def"), 8), (("x-1",), 1)])
def test_versions_only_grow(seen: tuple[str, ...], expected: int) -> None:
    assert envoy_files.next_counter(*seen) == expected


def test_a_host_counts_as_healthy_only_once_checked() -> None:
    def cluster(protocol: envoy_config.Protocol, *health: dict[str, bool]) -> dict[str, object]:
        hosts = [{"hostname": f"a{n}", "health_status": status} for n, status in enumerate(health)]
        return {"name": envoy_config.cluster_name("e", "m@1", protocol), "host_statuses": hosts}

    http = cluster("http", {}, {}, {"failed_active_health_check": True})
    grpc = cluster("grpc", {}, {"pending_active_hc": True}, {"failed_active_health_check": True})
    stats = {"cluster.e~m@1.upstream_rq_active": "3", "cluster.e~m@1~grpc.upstream_rq_active": "2"}

    state = envoy_state.backend_states([http, grpc, {"name": "other"}], stats)
    assert list(state) == [("e", "m@1")]
    assert state["e", "m@1"].agents == {"a0", "a1", "a2"}
    assert state["e", "m@1"].healthy == 1
    assert state["e", "m@1"].active_requests == 5


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", "its log does not say why"),
        ("[w] Filesystem config update rejected: route: unknown cluster 'x'\n", "route: unknown cluster 'x'"),
        (
            '[w] update rejected: goo.gle/debugproto\nname: "p"\n: Proto constraint failed\n',
            "Proto constraint failed",
        ),
    ],
)
def test_reasons_are_found_in_the_log(log: str, reason: str) -> None:
    assert envoy_files.rejection_reason(log) == reason


def test_reasons_are_found_in_what_validation_prints() -> None:
    assert validation_reason("a\n\nerror initializing: no\n") == "error initializing: no"
    assert validation_reason("") == "it does not say why"


def test_the_gateway_lists_only_extensions_that_it_answers() -> None:
    found = json.dumps(envoy_routes.routes([]))
    assert "binary_tensor_data" in found
    assert "model_repository" not in found
    assert '"/v2/repository/"' in found, "it is refused with a reason"
