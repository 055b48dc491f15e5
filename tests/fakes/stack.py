"""The whole product, really running: `signalbox up` on a home and ports of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from control_plane.config import Settings
from tests.fakes.waiting import wait_until

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on; all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass(frozen=True)
class Stack:
    """A running Signalbox: its settings, its REST client, and its processes."""

    settings: Settings
    supervisor: subprocess.Popen[str]
    api: httpx.Client
    output: Path

    @property
    def environment(self) -> dict[str, str]:
        return self.settings.child_environment()

    def cli(
        self, *arguments: str, stdin: str | None = None, timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "control_plane", *arguments],
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def endpoint(self, name: str) -> dict[str, Any]:
        answer = self.api.get(f"/endpoints/{name}")
        answer.raise_for_status()
        return dict(answer.json())

    def deploy(self, name: str, version: str, **settings: Any) -> dict[str, Any]:
        answer = self.api.put(f"/endpoints/{name}", json={"version": version, **settings})
        assert answer.is_success, answer.text
        return self.wait_for(name, lambda view: view["serving_ref"] == version and view["health"] == "ready")

    def wait_for(
        self, name: str, ready: Callable[[dict[str, Any]], bool], timeout_s: float = 60
    ) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            view = self.endpoint(name)
            return view if ready(view) else None

        return wait_until(look, timeout_s=timeout_s, what=lambda: f"{name}: {self.endpoint(name)}")

    def process(self, role: str) -> psutil.Process:
        """The supervised process whose command line ends in *role*: web, controller, worker; or Envoy."""
        for process in psutil.Process(self.supervisor.pid).children():
            words = process.cmdline()
            if role == "envoy" and words and "envoy" in Path(words[0]).name:
                return process
            if words and words[-1] == role:
                return process
        raise LookupError(role)


def tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process that names *home* in its command line or runs with it as SIGNALBOX_HOME."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = any(str(home) in word for word in process.cmdline())
            if mine or process.environ().get("SIGNALBOX_HOME") == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if process.pid != os.getpid()]


def settings_for(home: Path, **changes: Any) -> Settings:
    web_port, gateway_port = free_ports(2)
    return Settings(home=home, web_port=web_port, gateway_port=gateway_port, disk_floor=0.0, **changes)


def start(settings: Settings) -> Stack:
    settings.root.mkdir(parents=True, exist_ok=True)
    output = settings.root / "up.out"
    with output.open("w") as stream:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "control_plane", "up"],
            env=settings.child_environment(),
            stdout=stream,
            stderr=subprocess.STDOUT,
            text=True,
        )
    api = httpx.Client(base_url=f"{settings.web_url}/api/v1", timeout=30)
    stack = Stack(settings, supervisor, api, output)
    wait_until(lambda: _serving(stack), timeout_s=START_TIMEOUT_S, what=output.read_text)
    return stack


def _serving(stack: Stack) -> bool:
    assert stack.supervisor.poll() is None, stack.output.read_text()
    try:
        status = stack.api.get("/status").json()
    except httpx.TransportError:
        return False
    return bool(status.get("controller") == "leading" and status.get("gateway") == "serving")


def stop(stack: Stack) -> None:
    """End it as Ctrl-C does, and see that nothing is left."""
    stack.api.close()
    if stack.supervisor.poll() is None:
        stack.supervisor.send_signal(signal.SIGINT)
        stack.supervisor.wait(STOP_TIMEOUT_S)
    left = processes_of(stack.settings.root)
    for process in left:
        process.kill()
    assert not left, f"processes left behind: {[process.cmdline() for process in left]}"


@contextmanager
def running(settings: Settings) -> Iterator[Stack]:
    stack = start(settings)
    try:
        yield stack
    finally:
        stop(stack)
