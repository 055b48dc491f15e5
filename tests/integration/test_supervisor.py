"""`signalbox up`: what it starts it watches, what it leaves is found again, what it ends is gone."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from control_plane.gateway import envoy_process
from tests.fakes import example_homes
from tests.fakes import stack as stacks
from tests.fakes.stack import Stack
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.timeout(300)


def test_a_busy_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    settings = stacks.settings_for(tmp_path / "home")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", settings.web_port))
        taken.listen()
        done = subprocess.run(
            [sys.executable, "-m", "control_plane", "up"],
            env=settings.child_environment(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 4
    assert str(settings.web_port) in done.stderr
    assert "--web-port" in done.stderr
    assert stacks.processes_of(settings.root) == []


def test_killed_supervisor_leaves_the_gateway_serving_and_the_next_adopts(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = stacks.settings_for(example_homes.loaded(tmp_path_factory, tmp_path / "home"))
    first = stacks.start(settings)
    try:
        _load_example(first)
        first.deploy("kept", "digits@1")
        agents = {agent["pid"] for agent in first.endpoint("kept")["agents"]}
        envoy = envoy_process.find_running(settings)
        own = [first.process(role) for role in ("web", "controller", "worker")]
        first.supervisor.send_signal(signal.SIGKILL)
        first.supervisor.wait(10)
        _, alive = psutil.wait_procs(own, timeout=60)
        assert alive == [], "web, controller and worker end with their supervisor"
        assert envoy_process.find_running(settings) == envoy
        assert _predicts(first, "kept")
    finally:
        first.api.close()
    with stacks.running(settings) as second:
        second.wait_for("kept", lambda view: view["health"] == "ready")
        assert {a["pid"] for a in second.endpoint("kept")["agents"] if a["phase"] == "ready"} == agents
        assert envoy_process.find_running(settings) == envoy
        assert "goes on" in second.output.read_text()


def test_killed_envoy_is_back(stack: Stack) -> None:
    old = stack.process("envoy")
    old.kill()
    url = f"{stack.settings.gateway_url}/v2/health/live"
    wait_until(lambda: _answers(url), timeout_s=10, what=lambda: stack.output.read_text(), pause_s=0.01)
    assert stack.process("envoy").pid != old.pid


def test_an_end_is_one_line_that_says_how(stack: Stack) -> None:
    pid = stack.process("worker").pid
    psutil.Process(pid).kill()
    line = wait_until(
        lambda: next((each for each in stack.output.read_text().splitlines() if str(pid) in each), None),
        timeout_s=10,
        what=stack.output.read_text,
    )
    assert "worker" in line
    assert "SIGKILL" in line
    wait_until(lambda: _has_new(stack, "worker", pid), timeout_s=20, what=stack.output.read_text)


def _has_new(stack: Stack, role: str, old: int) -> bool:
    try:
        return stack.process(role).pid != old
    except (LookupError, psutil.Error):
        return False


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def _predicts(stack: Stack, name: str) -> bool:
    body = {"input": [[[[0.5] * 8] * 8]]}
    return httpx.post(f"{stack.settings.gateway_url}/e/{name}/predict", json=body).status_code == 200


def _load_example(stack: Stack) -> None:
    done = stack.cli("example")
    assert done.returncode == 0, done.stderr
