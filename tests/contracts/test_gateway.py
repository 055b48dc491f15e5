"""What every gateway does, whether Envoy or the one of the controller's tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Protocol

import pytest

from control_plane.errors import UnavailableError
from control_plane.gateway.base import Gateway
from control_plane.gateway.traffic_plan import (
    Backend,
    Comparison,
    Mirror,
    Replica,
    Sticky,
    TrafficPlan,
    extras,
)
from tests.fakes.envoy import RunningEnvoy, running_envoy
from tests.fakes.gateway import FakeGateway


class Rig(Protocol):
    """A gateway whose process can be taken away and given back."""

    gateway: Gateway

    def kill(self) -> None: ...
    def start(self) -> None: ...


class FakeRig:
    def __init__(self) -> None:
        self.gateway = FakeGateway()

    def kill(self) -> None:
        self.gateway.live = False

    def start(self) -> None:
        self.gateway.live = True


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEnvoy]:
    with running_envoy(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(params=["envoy", "fake"])
def rig(request: pytest.FixtureRequest) -> Rig:
    if request.param == "fake":
        return FakeRig()
    running: RunningEnvoy = request.getfixturevalue("envoy")
    running.gateway.publish_routes([])
    running.gateway.publish_backends([])
    return running


def replicas(*agents: str) -> tuple[Replica, ...]:
    """Members nobody listens behind: what they are is known, healthy they are not."""
    return tuple(
        Replica(agent, f"unix:/nowhere/{agent}.rest", f"unix:/nowhere/{agent}.grpc") for agent in agents
    )


def plan(endpoint: str, *backends: tuple[str, float, tuple[Replica, ...]]) -> TrafficPlan:
    return TrafficPlan(endpoint, tuple(Backend(version, who, weight) for version, weight, who in backends))


ONE = plan("digits", ("digits@1", 1.0, replicas("a1", "a2")))
ONE_OTHER = plan("other", ("cats@7", 1.0, replicas("c1")))
BOTH = plan("digits", ("digits@1", 1.0, replicas("a1")), ("digits@2", 0.0, replicas("b1")))
COMPARED = Comparison(rollout="r1", stable="digits@1", candidate="digits@2")
EXTRAS: tuple[dict[str, Any], ...] = (
    {"mirror": Mirror("digits@2", 0.5)},
    {"sticky": Sticky("cookie", "session")},
    {"comparison": COMPARED},
    {"comparison": replace(COMPARED, tester_header=True)},
)


def test_a_fresh_gateway_is_live_and_knows_nothing(rig: Rig) -> None:
    state = rig.gateway.observe()

    assert state.live
    assert (state.backends, state.weights, state.problem) == ({}, {}, None)


def test_backends_are_known_before_any_request_moves(rig: Rig) -> None:
    rig.gateway.publish_backends([ONE])

    state = rig.gateway.observe()
    assert state.backends["digits", "digits@1"].agents == {"a1", "a2"}
    assert state.backends["digits", "digits@1"].active_requests == 0
    assert state.weights == {}


def test_routes_put_weights_in_force(rig: Rig) -> None:
    two = plan("digits", ("digits@1", 0.75, replicas("a1")), ("digits@2", 0.25, replicas("b1")))
    rig.gateway.publish_backends([two])
    rig.gateway.publish_routes([two])

    assert rig.gateway.observe().weights == {"digits": {"digits@1": 0.75, "digits@2": 0.25}}


def test_publishing_the_same_twice_changes_nothing(rig: Rig) -> None:
    for _ in range(2):
        rig.gateway.publish_backends([ONE])
        rig.gateway.publish_routes([ONE])

    assert rig.gateway.observe().weights == {"digits": {"digits@1": 1.0}}


def test_exactly_the_published_backends_are_known(rig: Rig) -> None:
    rig.gateway.publish_backends([ONE])
    rig.gateway.publish_backends([plan("other", ("cats@7", 0.0, replicas("c1")))])

    assert set(rig.gateway.observe().backends) == {("other", "cats@7")}


def test_a_replica_can_join_and_leave(rig: Rig) -> None:
    for agents in (("a1",), ("a1", "a2", "a3"), ("a2",)):
        rig.gateway.publish_backends([plan("digits", ("digits@1", 1.0, replicas(*agents)))])
        assert rig.gateway.observe().backends["digits", "digits@1"].agents == set(agents)


def test_a_backend_without_replicas_is_known_and_unhealthy(rig: Rig) -> None:
    empty = plan("digits", ("digits@1", 1.0, ()))
    rig.gateway.publish_backends([empty])
    rig.gateway.publish_routes([empty])

    state = rig.gateway.observe()
    assert state.backends["digits", "digits@1"].agents == frozenset()
    assert state.backends["digits", "digits@1"].healthy == 0


def test_weight_zero_is_no_share(rig: Rig) -> None:
    kept = plan("digits", ("digits@1", 1.0, replicas("a1")), ("digits@2", 0.0, replicas("b1")))
    rig.gateway.publish_backends([kept])
    rig.gateway.publish_routes([kept, plan("idle")])

    assert rig.gateway.observe().weights == {"digits": {"digits@1": 1.0}, "idle": {}}


def test_routes_to_an_unknown_backend_are_refused(rig: Rig) -> None:
    rig.gateway.publish_backends([ONE])
    rig.gateway.publish_routes([ONE])

    with pytest.raises(UnavailableError, match="publish backends first"):
        rig.gateway.publish_routes([plan("digits", ("digits@2", 1.0, replicas("b1")))])
    state = rig.gateway.observe()
    assert state.weights == {"digits": {"digits@1": 1.0}}
    assert state.problem is not None


def test_a_backend_that_gets_requests_is_not_forgotten(rig: Rig) -> None:
    rig.gateway.publish_backends([ONE])
    rig.gateway.publish_routes([ONE])

    with pytest.raises(UnavailableError, match="publish routes first"):
        rig.gateway.publish_backends([])
    assert set(rig.gateway.observe().backends) == {("digits", "digits@1")}


@pytest.mark.parametrize("asked", EXTRAS)
def test_what_is_asked_beside_weights_is_in_force_once_routed(rig: Rig, asked: dict[str, Any]) -> None:
    compared = replace(BOTH, **asked)
    rig.gateway.publish_backends([compared, ONE_OTHER])
    assert rig.gateway.observe().extras == {}

    rig.gateway.publish_routes([compared, ONE_OTHER])
    assert rig.gateway.observe().extras == {"digits": extras(compared), "other": ""}
    rig.gateway.publish_routes([BOTH])
    assert rig.gateway.observe().extras == {"digits": ""}


@pytest.mark.parametrize("asked", [asked for asked in EXTRAS if "sticky" not in asked])
def test_a_version_that_gets_copies_or_testers_is_a_backend_like_others(
    rig: Rig, asked: dict[str, Any]
) -> None:
    rig.gateway.publish_backends([ONE])
    with pytest.raises(UnavailableError, match="publish backends first"):
        rig.gateway.publish_routes([replace(ONE, **asked)])

    rig.gateway.publish_backends([BOTH])
    rig.gateway.publish_routes([replace(BOTH, **asked)])
    with pytest.raises(UnavailableError, match="publish routes first"):
        rig.gateway.publish_backends([ONE])


def test_a_good_change_ends_the_problem(rig: Rig) -> None:
    with pytest.raises(UnavailableError):
        rig.gateway.publish_routes([ONE])
    rig.gateway.publish_backends([ONE])

    assert rig.gateway.observe().problem is None


def test_a_dead_gateway_says_so_at_once_and_comes_back_as_it_was(rig: Rig) -> None:
    rig.gateway.publish_backends([ONE])
    rig.gateway.publish_routes([ONE])
    before = rig.gateway.observe()

    rig.kill()
    started = time.monotonic()
    down = rig.gateway.observe()
    with pytest.raises(UnavailableError):
        rig.gateway.publish_backends([])
    took_s = time.monotonic() - started
    rig.start()

    assert not down.live
    assert down.problem
    assert took_s < 5
    after = rig.gateway.observe()
    assert (after.live, after.weights) == (True, before.weights)
    assert after.backends["digits", "digits@1"].agents == {"a1", "a2"}
