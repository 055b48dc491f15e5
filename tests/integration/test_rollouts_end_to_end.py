"""Candidates on their way to stable: real agents, real Envoy, traffic, and what becomes of them and why.

All of them run at once on one machine, as endpoints of one product do; the rollouts shorten their bake times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import psutil
import pytest

from serving_agent.contract import wire
from tests.fakes import rollout_traffic as traffic
from tests.fakes import stack as stacks
from tests.fakes.rollout_traffic import Traffic
from tests.fakes.stack import Stack
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.timeout(400)

Deploy = Callable[[str, str], None]

RATE = 40.0
HALF = {"weights": [0.5, 1.0], "bake_s": 3, "min_requests": 30, "warm_s": 600}
BAD = ("Fails", "AlwaysFails", "IsSlow", "AnswersNaN", "IsWrong", "Crashes", "Hangs", "Leaks")
FOR = {
    "Fails": {"errors", "tries"},
    "AlwaysFails": {"all-errors", "errors", "tries"},
    "IsSlow": {"latency", "first_byte"},
    "AnswersNaN": {"nonfinite"},
    "IsWrong": {"outputs"},
    "Crashes": {"agent-failed", "not-ready"},
    "Hangs": {"hangs", "not-ready", "errors"},
    "Leaks": {"memory"},
}
"""The reason each of them is to be rolled back for."""
PATIENT = {"Leaks": {"guardrails": {name: {"observe_only": True} for name in ("latency", "first_byte")}}}
"""What must not be found first: taking memory takes time as well."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("rollouts")
    settings = stacks.settings_for(
        home / "home", handlers=traffic.allowed(), evidence_tick_s=1.0, collect_interval_s=0.5
    )
    with stacks.running(settings) as stack:
        yield stack


@pytest.fixture(scope="module")
def versions(running: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return traffic.register(running.settings, tmp_path_factory.mktemp("versions"))


def send(stack: Stack, name: str, rate: float, **how: Any) -> Traffic:
    return Traffic(stack.settings.gateway_url, name, rate, connections=6, **how)


@pytest.fixture
def deploy(running: Stack) -> Iterator[Deploy]:
    """Deploy endpoints that are gone when the test is over: they take nothing from those of the others."""
    names: list[str] = []

    def begin(name: str, version: str) -> None:
        names.append(name)
        running.deploy(name, version)

    yield begin
    for name in names:
        running.api.delete(f"/endpoints/{name}").raise_for_status()


@pytest.fixture(scope="module")
def condemned(running: Stack, versions: dict[str, str]) -> Iterator[dict[str, Traffic]]:
    """One rollout under way for each bad candidate, with traffic on it."""
    for name in BAD:
        running.deploy(name.lower(), versions["Doubles"])
    with ExitStack() as everything:
        sent = {
            name: everything.enter_context(send(running, name.lower(), RATE, binary=name == "AnswersNaN"))
            for name in BAD
        }
        for name in BAD:
            traffic.start(
                running, name.lower(), versions[name], **{**HALF, "bake_s": 60}, **PATIENT.get(name, {})
            )
        yield sent


@pytest.mark.parametrize("name", BAD)
def test_a_bad_candidate_is_rolled_back_for_the_right_reason(
    name: str, running: Stack, condemned: dict[str, Traffic]
) -> None:
    view = traffic.wait_for(running, name.lower(), "rolled_back", timeout_s=150)
    assert view["code"] in FOR[name], view["reason"]
    assert view["weight"] == 0
    assert running.endpoint(name.lower())["serving_ref"] == view["stable_ref"]
    condemned[name].stop()
    assert condemned[name].answered > 0
    running.api.delete(f"/endpoints/{name.lower()}").raise_for_status()


def test_a_good_candidate_is_promoted_step_by_step_without_a_failed_request(
    running: Stack, versions: dict[str, str], deploy: Deploy
) -> None:
    name = "good"
    deploy(name, versions["Doubles"])
    with send(running, name, 150) as sent:
        traffic.start(running, name, versions["DoublesAgain"], **HALF | {"weights": [0.25, 0.5, 1.0]})
        before = pids(running, name)
        view = traffic.wait_for(running, name, "completed", timeout_s=180)
    assert (sent.failures, sent.wrong) == ([], 0)
    assert running.endpoint(name)["version_ref"] == view["candidate_ref"]
    steps = [event["details"]["weight"] for event in events(running, view["id"], "rollout.confirmed")]
    assert steps == [0.25, 0.5, 1.0]
    assert before <= pids(running, name), "the old version is kept warm"


def test_killed_at_every_transition_no_step_is_skipped_or_shortened(
    running: Stack, versions: dict[str, str], deploy: Deploy
) -> None:
    """kill -9 of the controller whenever the rollout has moved on; requests do not notice."""
    name = "survives"
    deploy(name, versions["Doubles"])
    seen = set()
    with send(running, name, 150) as sent:
        traffic.start(running, name, versions["DoublesAgain"], **HALF | {"bake_s": 4})
        while (view := moved_on(running, name, seen))["state"] != "completed":
            replaced(running, "controller")
    assert (sent.failures, sent.wrong) == ([], 0)
    assert len(seen) >= 5
    confirmed = events(running, view["id"], "rollout.confirmed")
    assert [event["details"]["weight"] for event in confirmed] == [0.5, 1.0]
    assert confirmed[1]["at"] - confirmed[0]["at"] >= 4


def moved_on(stack: Stack, name: str, seen: set[tuple[str, int]]) -> dict[str, Any]:
    """Wait until the rollout is somewhere it was not seen yet."""

    def look() -> dict[str, Any] | None:
        view = traffic.rollout(stack, name)
        assert view["state"] not in traffic.ENDED or view["state"] == "completed", view
        return view if (view["state"], view["step"]) not in seen else None

    view = wait_until(
        look, timeout_s=120, what=lambda: f"{name}: {traffic.rollout(stack, name)}", pause_s=0.02
    )
    seen.add((view["state"], view["step"]))
    return view


def test_a_gateway_that_is_killed_in_the_middle_of_a_step_goes_on_with_it(
    running: Stack, versions: dict[str, str], deploy: Deploy
) -> None:
    name = "gateway"
    deploy(name, versions["Doubles"])
    with send(running, name, 100) as sent:
        traffic.start(running, name, versions["DoublesAgain"], **HALF)
        traffic.wait_for(running, name, "baking")
        replaced(running, "envoy")
        traffic.wait_for(running, name, "completed", timeout_s=180)
    assert sent.wrong == 0
    refused = ("ConnectError", "ReadError", "RemoteProtocolError", "WriteError")
    assert all(failure.startswith(refused) for failure in sent.failures), sent.failures[:3]


def test_blue_green_is_looked_at_switched_at_once_and_switched_back(
    running: Stack, versions: dict[str, str], deploy: Deploy
) -> None:
    name = "green"
    deploy(name, versions["Doubles"])
    with send(running, name, 60) as sent:
        view = traffic.start(
            running,
            name,
            versions["DoublesAgain"],
            strategy="blue-green",
            auto_advance=False,
            bake_s=2,
            warm_s=600,
        )
        view = traffic.wait_for(running, name, "awaiting_approval")
        assert view["weight"] == 0
        preview = httpx.post(f"{view['preview_url']}/predict", json={"input": [[3.0]]})
        assert preview.headers[wire.VERSION_HEADER] == view["candidate_ref"]
        act(running, view, "approve")
        view = traffic.wait_for(running, name, "completed")
        before = pids(running, name)
        act(running, view, "rollback", reason="clients complain")
        view = traffic.wait_for(running, name, "rolled_back")
    assert (sent.failures, sent.wrong) == ([], 0)
    assert running.endpoint(name)["serving_ref"] == view["stable_ref"]
    assert pids(running, name) == before, "nothing was started anew"
    assert view["reason"] == "clients complain"


def test_a_shadow_compares_answers_that_no_client_sees(
    running: Stack, versions: dict[str, str], deploy: Deploy
) -> None:
    name = "shadow"
    deploy(name, versions["Doubles"])
    with send(running, name, 80) as sent:
        traffic.start(running, name, versions["IsWrong"], strategy="shadow", mirror=1.0, bake_s=120)
        view = traffic.wait_for(running, name, "rolled_back")
    assert (sent.failures, sent.wrong) == ([], 0)
    assert view["code"] == "disagreement", view["reason"]
    gallery = running.api.get(f"/rollouts/{view['id']}/disagreements").json()
    shown = gallery[0]
    (value,) = shown["inputs"]["x"][0]
    assert shown["answers"]["stable"]["outputs"]["y"]["data"] == [[2 * value]]
    assert shown["answers"]["candidate"]["outputs"]["y"]["data"] == [[16 * value]]


def act(stack: Stack, view: dict[str, Any], command: str, **body: Any) -> None:
    answer = stack.api.post(f"/rollouts/{view['id']}/{command}", json=body)
    assert answer.is_success, answer.text


def replaced(stack: Stack, role: str) -> None:
    """Kill a process of that role and wait for its successor."""
    old = stack.process(role)
    old.kill()

    def successor() -> bool:
        try:
            return stack.process(role).pid != old.pid
        except (LookupError, psutil.Error):
            return False

    wait_until(successor, timeout_s=30, what=lambda: stack.output.read_text()[-2000:])


def pids(stack: Stack, name: str) -> set[int]:
    return {agent["pid"] for agent in stack.endpoint(name)["agents"] if agent["phase"] == "ready"}


def events(stack: Stack, rollout_id: str, action: str) -> list[dict[str, Any]]:
    found = stack.api.get(f"/rollouts/{rollout_id}/events", params={"page_size": 200}).json()["items"]
    return [event for event in reversed(found) if event["action"] == action]
