"""Under continuous load through the gateway, nothing an operator or a crash does loses a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fakes import example_homes
from tests.fakes import stack as stacks
from tests.fakes.load import Load
from tests.fakes.stack import Stack
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def served(
    stack: Stack, digits: list[dict[str, Any]], request: pytest.FixtureRequest
) -> Iterator[tuple[Stack, str]]:
    """An endpoint of two ready agents that serve digits@1."""
    name = request.node.name.split("[")[0].removeprefix("test_").replace("_", "-")[:40]
    stack.deploy(name, "digits@1", replicas=2)
    yield stack, name
    stack.api.delete(f"/endpoints/{name}").raise_for_status()


@pytest.fixture
def load(served: tuple[Stack, str], digits: list[dict[str, Any]]) -> Iterator[Load]:
    """Load whose every answer must name the right class, judged by the request's own example."""
    stack, name = served
    image = digits[0]["inputs"]["image"]

    def check(answer: dict[str, Any]) -> None:
        (probabilities,) = answer["predictions"]["probabilities"]
        assert len(probabilities) == 10
        assert abs(sum(probabilities) - 1) < 1e-3

    with Load(f"{stack.settings.gateway_url}/e/{name}/predict", {"input": [image]}, check) as running:
        yield running
    assert running.failures == []


def agent_pids(stack: Stack, name: str) -> set[int]:
    return {agent["pid"] for agent in stack.endpoint(name)["agents"] if agent["phase"] == "ready"}


def kill_and_wait_for_another(stack: Stack, role: str) -> None:
    old = stack.process(role)
    old.kill()

    def replaced() -> psutil.Process | None:
        try:
            new = stack.process(role)
        except (LookupError, psutil.Error):
            return None
        return new if new.pid != old.pid else None

    wait_until(replaced, timeout_s=30, what=lambda: f"no new {role}: {stack.output.read_text()[-2000:]}")


def test_killed_controller_loses_nothing_and_adopts(served: tuple[Stack, str], load: Load) -> None:
    stack, name = served
    before = agent_pids(stack, name)
    kill_and_wait_for_another(stack, "controller")
    load.wait_for_more(50)
    wait_until(
        lambda: stack.api.get("/status").json()["controller"] == "leading",
        timeout_s=20,
        what=lambda: "no leader",
    )
    stack.api.post(f"/endpoints/{name}/scale", json={"replicas": 3}).raise_for_status()
    stack.wait_for(name, lambda view: view["ready"] == 3)
    assert before < agent_pids(stack, name), "agents are adopted, not restarted"
    load.wait_for_more(50)


def test_killed_web_process_loses_nothing(served: tuple[Stack, str], load: Load) -> None:
    stack, _ = served
    kill_and_wait_for_another(stack, "web")
    load.wait_for_more(50)
    wait_until(lambda: answers(stack), timeout_s=30, what=lambda: stack.output.read_text()[-2000:])


def answers(stack: Stack) -> bool:
    import httpx

    try:
        return stack.api.get("/status").is_success
    except httpx.TransportError:
        return False


def test_killed_agent_loses_nothing_and_is_replaced(served: tuple[Stack, str], load: Load) -> None:
    stack, name = served
    before = agent_pids(stack, name)
    victim = before.pop()
    psutil.Process(victim).kill()
    load.wait_for_more(100)
    stack.wait_for(name, lambda view: view["ready"] == 2 and victim not in agent_pids(stack, name))
    assert before < agent_pids(stack, name)


def test_redeploy_moves_every_request(served: tuple[Stack, str], load: Load) -> None:
    stack, name = served
    stack.deploy(name, "digits@2")
    load.wait_for_more(50)
    stack.wait_for(name, lambda view: {agent["version_ref"] for agent in view["agents"]
                                       if agent["phase"] == "ready"} == {"digits@2"})  # fmt: skip
    stack.deploy(name, "digits@1")
    load.wait_for_more(50)


def test_scaling_under_load_loses_nothing(served: tuple[Stack, str], load: Load) -> None:
    stack, name = served
    for replicas in (3, 1, 2):
        stack.api.post(f"/endpoints/{name}/scale", json={"replicas": replicas}).raise_for_status()
        settled(stack, name, replicas)
        load.wait_for_more(50)


def settled(stack: Stack, name: str, replicas: int) -> None:
    def is_settled(view: dict[str, Any]) -> bool:
        live = [agent for agent in view["agents"] if agent["phase"] not in {"failed", "stopped"}]
        return view["ready"] == replicas == len(live)

    stack.wait_for(name, is_settled)


def test_restart_under_load_loses_nothing(served: tuple[Stack, str], load: Load) -> None:
    stack, name = served
    before = agent_pids(stack, name)
    stack.api.post(f"/endpoints/{name}/restart", json={}).raise_for_status()
    stack.wait_for(name, lambda view: view["health"] == "ready" and not before & agent_pids(stack, name))
    settled(stack, name, 2)
    load.wait_for_more(50)


def test_killed_envoy_serves_again_at_once(served: tuple[Stack, str], digits: list[dict[str, Any]]) -> None:
    stack, name = served
    ask = _asker(stack, name, digits[0]["inputs"]["image"])
    assert ask()
    stack.process("envoy").kill()
    wait_until(ask, timeout_s=10, what=lambda: stack.output.read_text()[-2000:], pause_s=0.01)


def _asker(stack: Stack, name: str, image: Any) -> Callable[[], bool]:
    import httpx

    def ask() -> bool:
        try:
            answer = httpx.post(
                f"{stack.settings.gateway_url}/e/{name}/predict", json={"input": [image]}, timeout=5
            )
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    return ask


def test_starting_again_finds_everything_as_it_was(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, digits: list[dict[str, Any]]
) -> None:
    settings = stacks.settings_for(example_homes.loaded(tmp_path_factory, tmp_path / "again"))
    with stacks.running(settings) as first:
        accept = {"kind": "example", "params": {}}
        job = first.api.post("/jobs", json=accept).json()
        wait_until(
            lambda: first.api.get(f"/jobs/{job['id']}").json()["state"] == "succeeded",
            timeout_s=120, what=lambda: first.api.get(f"/jobs/{job['id']}").text,
        )  # fmt: skip
        first.deploy("kept", "digits@1")
    with stacks.running(settings) as second:
        second.wait_for("kept", lambda view: view["health"] == "ready")
        assert _asker(second, "kept", digits[0]["inputs"]["image"])()
