"""A real Envoy on a home folder and port of its own, and plans to give it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from control_plane.config import Settings
from control_plane.gateway import envoy_process
from control_plane.gateway.envoy import EnvoyGateway
from control_plane.gateway.traffic_plan import Backend, Replica, TrafficPlan
from tests.fakes.stack import settings_for
from tests.fakes.waiting import wait_until


class RunningEnvoy:
    """Envoy as the supervisor runs it; `kill` and `start` at will."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.gateway = EnvoyGateway(settings)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        envoy_process.prepare_files(self.settings)
        self._process = subprocess.Popen(envoy_process.command(self.settings))
        wait_until(lambda: self.gateway.observe().live, timeout_s=20, what=self.log, pause_s=0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def log(self) -> str:
        path = self.settings.logs_dir / "envoy.log"
        return path.read_text()[-2000:] if path.exists() else "no log"

    @property
    def url(self) -> str:
        return self.settings.gateway_url

    def wait_healthy(self, endpoint: str, version: str, count: int) -> None:
        def healthy() -> bool:
            state = self.gateway.observe().backends.get((endpoint, version))
            return state is not None and state.healthy == count

        wait_until(healthy, timeout_s=10, what=lambda: str(self.gateway.observe()), pause_s=0.02)

    def apply(self, *plans: TrafficPlan) -> None:
        """Make before break, as the controller does: backends, health, routes."""
        self.gateway.publish_backends(plans)
        for plan in plans:
            for backend in plan.backends:
                self.wait_healthy(plan.endpoint, backend.version, len(backend.replicas))
        self.gateway.publish_routes(plans)


@contextmanager
def running_envoy(home: Path) -> Iterator[RunningEnvoy]:
    envoy = RunningEnvoy(settings_for(home))
    try:
        envoy.start()
        yield envoy
    finally:
        envoy.kill()


def plan(endpoint: str, **shares_and_replicas: tuple[float, list[Replica]]) -> TrafficPlan:
    """A plan of versions `digits@1` for the keyword `v1`, and so on: (weight, replicas)."""
    backends = [
        Backend(f"digits@{name.removeprefix('v')}", tuple(replicas), weight)
        for name, (weight, replicas) in shares_and_replicas.items()
    ]
    return TrafficPlan(endpoint, tuple(backends), timeout_s=10.0)
