"""A profile of a live agent: taken under load, without a failed request, one at a time, always ended."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton

from control_plane import agent_client, socket_http
from control_plane.domain.profile import ProfileOrder, Wish
from control_plane.jobs import profiling
from control_plane.jobs.base import JobFailedError
from serving_agent.contract import profile, wire
from serving_agent.contract.options import ServingOptions
from serving_agent.contract.profile import LiveOrder
from tests.fakes import models
from tests.fakes.agents import RunningAgent, make_manifest, start_agent
from tests.fakes.load import Load
from tests.fakes.nursery import Nursery
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.timeout(120)

HANDLER = "tests.fakes.operator_handlers:Raises"
BODY = {"input": [[1.0]]}
LONG = LiveOrder(requests=10_000, seconds=60.0)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[RunningAgent]:
    """Doubles, and fails on -1."""
    folder = tmp_path_factory.mktemp("profiled")
    manifest = make_manifest(
        folder,
        models.SCALAR,
        handler=HANDLER,
        allowed_handlers=(HANDLER,),
        options=ServingOptions(check_interval_s=0.0),
    )
    with start_agent(manifest, folder / "agent", nursery=nursery) as running:
        yield running


def address(agent: RunningAgent) -> str:
    return agent.manifest.rest_address


def load(agent: RunningAgent) -> Load:
    def is_doubled(answer: dict[str, Any]) -> None:
        assert answer == {"predictions": [[2.0]]}

    return Load(f"http://{address(agent)}/predict", BODY, is_doubled)


def ask(agent: RunningAgent, order: object, **headers: str) -> httpx.Response:
    with agent.http as http:
        return http.post(profile.ROUTE, content=json.dumps(order), headers=headers)


def test_a_loaded_agent_is_profiled_without_a_failed_request(agent: RunningAgent, tmp_path: Path) -> None:
    before = agent.status()
    with load(agent) as traffic:
        order = ProfileOrder(
            report_id="0" * 32, ref="digits@2", endpoint="digits", wish=Wish(requests=150, rate_hz=250)
        )
        told: list[float] = []
        report = profiling.of_agent(
            address(agent), order, 1, "cpu", tmp_path, lambda stage, done: told.append(done)
        )
        traffic.wait_for_more(20)
    assert traffic.failures == []
    assert report.source == "agent"
    assert report.key.requests == 150
    assert [stage.name for stage in report.stages] == list(profile.STAGES)
    assert report.total is not None
    assert 0 < report.total.p50_s <= report.total.p99_s
    whole = sum(stage.mean_s for stage in report.stages)
    assert whole == pytest.approx(report.total.mean_s, rel=0.05)
    assert report.key.wall_s == report.total.p50_s
    assert any("held the interpreter" in note for note in report.notes)
    after = agent.status()
    assert (after["phase"], after["agent_id"]) == (before["phase"], before["agent_id"])
    content = json.loads((tmp_path / "report.json").read_bytes())
    assert content["source"] == "agent"


def test_only_one_profile_is_taken_at_a_time_and_it_ends_with_who_asked(agent: RunningAgent) -> None:
    host, _, port = address(agent).rpartition(":")
    first = HTTPConnection(host, int(port))
    first.request("POST", profile.ROUTE, body=json.dumps({"requests": 10_000, "seconds": 60.0}))

    def is_refused() -> bool:
        answer = ask(agent, {"requests": 1, "seconds": 0.01})
        return answer.status_code == 409 and "taken already" in answer.json()["error"]

    wait_until(is_refused, timeout_s=10, what=lambda: agent.log[-500:])
    with pytest.raises(agent_client.AgentBusyError):
        agent_client.profile(address(agent), LONG)
    with pytest.raises(JobFailedError) as failure:
        profiling._asked(address(agent), LONG, lambda done: None)
    assert failure.value.reason.code == "agent_busy"
    first.close()  # whoever asked has gone: the profile ends, and another one may be taken
    wait_until(lambda: not is_refused(), timeout_s=10, what=lambda: "still busy")


def test_without_requests_there_is_nothing_to_tell(agent: RunningAgent, tmp_path: Path) -> None:
    order = ProfileOrder(
        report_id="0" * 32, ref="digits@2", endpoint="digits", wish=Wish(requests=5, seconds=0.1)
    )
    with pytest.raises(JobFailedError) as failure:
        profiling.of_agent(address(agent), order, 1, "cpu", tmp_path, lambda stage, done: None)
    assert failure.value.reason.code == "no_requests"
    assert "within" in failure.value.reason.message


def test_failing_requests_are_counted_apart(agent: RunningAgent) -> None:
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(agent_client.profile(address(agent), LiveOrder(requests=3, seconds=60)))
    )
    asking.start()
    tensor = triton.InferInput("x", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 1), np.float32))

    def is_over() -> bool:
        with triton.InferenceServerClient(agent.manifest.grpc_address) as client:
            client.infer(agent.manifest.endpoint, [tensor])
        with agent.http as http:
            assert http.post("/predict", json={"input": [[-1.0]]}).status_code == 500
            assert http.post("/predict", json=BODY).status_code == 200
        return not asking.is_alive()

    wait_until(is_over, timeout_s=20, what=lambda: agent.log[-500:])
    asking.join()
    (taken,) = answers
    assert (taken.requests, taken.rows, taken.ended) == (3, 3, "requests")
    assert taken.failed >= 1
    assert all(stage.mean_s >= 0 for stage in taken.stages)
    assert 1 <= taken.unwritten <= 2, "what came by gRPC"


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({"requests": 0, "seconds": 1}, 400),
        ({"requests": 1, "seconds": 1e9}, 400),
        ({"requests": 1, "seconds": 1, "rate_hz": 100_000}, 400),
        ({"requests": 1, "seconds": 1, "more": 1}, 400),
        ("x" * 5000, 400),
    ],
)
def test_orders_that_break_the_bounds_are_refused(agent: RunningAgent, order: object, status: int) -> None:
    assert ask(agent, order).status_code == status


def test_nobody_profiles_an_agent_through_the_gateway(agent: RunningAgent) -> None:
    for header in ("x-envoy-expected-rq-timeout-ms", "x-forwarded-proto", wire.REQUEST_ID_HEADER):
        assert ask(agent, {"requests": 1, "seconds": 1}, **{header: "1"}).status_code == 404
    with agent.http as http:
        assert http.get(profile.ROUTE).status_code == 405


def test_an_agent_that_ends_says_what_it_saw_until_then(tmp_path: Path, nursery: Nursery) -> None:
    manifest = make_manifest(
        tmp_path,
        models.SCALAR,
        handler=HANDLER,
        allowed_handlers=(HANDLER,),
        options=ServingOptions(check_interval_s=0.0),
    )
    answers: list[Any] = []

    def take(address: str) -> None:
        try:
            answers.append(agent_client.profile(address, LONG))
        except socket_http.NoAnswerError as error:
            answers.append(error)

    with start_agent(manifest, tmp_path / "agent", nursery=nursery) as running:
        asking = threading.Thread(target=take, args=(address(running),))
        asking.start()
        wait_until(
            lambda: ask(running, {"requests": 1, "seconds": 0.01}).status_code == 409,
            timeout_s=10,
            what=lambda: running.log[-500:],
        )
        with running.http as http:
            assert http.post("/predict", json=BODY).status_code == 200
        running.process.terminate()
        asking.join()
    (taken,) = answers
    assert (taken.requests, taken.ended) == (1, "draining")
