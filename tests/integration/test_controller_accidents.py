"""Real agents that break in real ways: each ends with a reason a person can act on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from control_plane.agent_client import AgentClient
from control_plane.controller.execute import Executor
from control_plane.controller.lease import Lease
from control_plane.controller.loop import Controller
from control_plane.controller.observe import Observer
from control_plane.controller.snapshot import Limits
from control_plane.domain.views import AgentView
from control_plane.errors import ConflictError
from control_plane.platforms.local import LocalPlatform
from control_plane.services import endpoints
from control_plane.services.context import Context
from tests.fakes import models, registry
from tests.fakes.gateway import FakeGateway
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.timeout(200)

HANDLERS = """
import threading
from serving_agent.model_server import ModelServer

class Hangs(ModelServer):
    def load_model(self, context):
        threading.Event().wait()

class Eats(ModelServer):
    def load_model(self, context):
        import torch
        self.weights = [torch.zeros(2**26) for _ in range(64)]
"""
START_TIMEOUT_S = 6.0

Reconcile = Callable[[Callable[[], bool]], None]


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    (tmp_path / "operators.py").write_text(HANDLERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = registry.open_home(tmp_path / "home", handlers=("operators:Hangs", "operators:Eats"))
    folder = models.save_torchscript(models.digits_model(), tmp_path / "model")
    registry.registration.register(
        made, model="digits", files_dir=folder, format="torchscript", handler="tensor",
        signature=models.DIGITS, labels=(), details={}, examples=(), actor="ana",
    )  # fmt: skip
    registry.register(made, model="broken", content=b"this is no archive")
    yield made
    made.engine.dispose()


@pytest.fixture
def reconcile(ctx: Context) -> Iterator[Reconcile]:
    """Tick a real controller with real processes until a condition holds; end its agents afterwards."""
    platform, client, gateway = LocalPlatform(ctx.settings), AgentClient(), FakeGateway()
    lease = Lease(ctx.engine, lease_s=5, clock=time.time, holder="test")
    limits = Limits(start_timeout_s=START_TIMEOUT_S)
    observer = Observer(ctx.engine, platform, gateway, client, limits=limits, clock=time.time)
    executor = Executor(ctx.settings, lease, platform, gateway, clock=time.time)
    controller = Controller(lease, observer, executor, tick_s=0.1)

    def until(condition: Callable[[], bool]) -> None:
        def look() -> bool:
            assert controller.tick()
            return condition()

        wait_until(look, timeout_s=60, what=lambda: str(endpoints.list_all(ctx)), pause_s=0.1)

    yield until
    for agent_id in platform.running():
        platform.kill(agent_id)
    wait_until(lambda: not platform.running(), timeout_s=10, what=lambda: str(platform.running()))
    client.close()


def failed(ctx: Context, name: str) -> list[AgentView]:
    return [agent for agent in endpoints.agents(ctx, endpoint=name) if agent.phase == "failed"]


def test_a_model_that_crashes_on_load_says_why(ctx: Context, reconcile: Reconcile) -> None:
    endpoints.deploy(ctx, "broken", "broken@1", actor="ana")
    reconcile(lambda: bool(failed(ctx, "broken")))
    (agent, *_) = failed(ctx, "broken")
    assert agent.exit_code == 3
    assert agent.reason
    assert "exit code" not in agent.reason
    assert str(ctx.settings.root) not in agent.reason
    assert agent.log_tail


def test_a_model_that_hangs_on_load_is_ended(ctx: Context, reconcile: Reconcile) -> None:
    endpoints.deploy(ctx, "hangs", "digits@1", handler="operators:Hangs", actor="ana")
    reconcile(lambda: bool(failed(ctx, "hangs")))
    (agent,) = failed(ctx, "hangs")
    assert agent.reason == f"did not become ready within {START_TIMEOUT_S:g} s: still loading"
    assert agent.pid is not None
    reconcile(lambda: not psutil.pid_exists(agent.pid or 0))


def test_a_model_that_eats_memory_stops_at_its_limit(ctx: Context, reconcile: Reconcile) -> None:
    endpoints.deploy(
        ctx, "eats", "digits@1", handler="operators:Eats", memory_bytes=1536 * 2**20, actor="ana"
    )
    reconcile(lambda: bool(failed(ctx, "eats")))
    assert "memory" in (failed(ctx, "eats")[0].reason or "")


def test_the_old_version_serves_on_while_the_new_one_crashes(ctx: Context, reconcile: Reconcile) -> None:
    endpoints.deploy(ctx, "ep", "digits@1", actor="ana")
    reconcile(lambda: endpoints.get(ctx, "ep").health == "ready")
    (before,) = (agent.pid for agent in endpoints.get(ctx, "ep").agents)
    endpoints.deploy(ctx, "ep", "broken@1", actor="ana")
    reconcile(lambda: endpoints.get(ctx, "ep").health == "crash loop")
    view = endpoints.get(ctx, "ep")
    assert view.serving_ref == "digits@1"
    assert before in {agent.pid for agent in view.agents if agent.phase == "ready"}


def test_an_agent_killed_by_hand_is_replaced_and_said_so(ctx: Context, reconcile: Reconcile) -> None:
    endpoints.deploy(ctx, "ep", "digits@1", actor="ana")
    reconcile(lambda: endpoints.get(ctx, "ep").health == "ready")
    (pid,) = (agent.pid for agent in endpoints.get(ctx, "ep").agents)
    psutil.Process(pid).kill()
    reconcile(lambda: bool(failed(ctx, "ep")) and endpoints.get(ctx, "ep").health == "ready")
    assert "SIGKILL" in (failed(ctx, "ep")[0].reason or "")


def test_of_two_operators_who_deploy_at_once_one_is_told(ctx: Context, reconcile: Reconcile) -> None:
    seen = endpoints.deploy(ctx, "ep", "digits@1", actor="ana")
    endpoints.deploy(ctx, "ep", "broken@1", actor="bob", expected_revision=seen.revision)
    with pytest.raises(ConflictError) as caught:
        endpoints.deploy(ctx, "ep", "digits@1", replicas=2, actor="ana", expected_revision=seen.revision)
    assert "bob" in str(caught.value)
    assert endpoints.get(ctx, "ep").version_ref == "broken@1"
