"""The controller on a real registry: decisions become rows, crashes in between lose nothing, one leads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from control_plane.controller import assignments, loop, records, shutdown
from control_plane.controller.housekeeping import forget_old_agents
from control_plane.controller.lease import Lease, LeaseLostError
from control_plane.controller.loop import Controller, Periodic
from control_plane.domain.endpoint import AgentPhase
from control_plane.errors import NotFoundError, UnavailableError
from control_plane.gateway import envoy
from control_plane.registry import session
from control_plane.registry.tables import Agent, Endpoint
from control_plane.services import endpoints, events
from tests.fakes.control import LEASE_S, Control, open_control


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = open_control(tmp_path / "home", versions=2)
    yield made
    made.ctx.engine.dispose()


def test_a_deployed_version_ends_up_serving(control: Control) -> None:
    control.deploy("digits", "digits@1", replicas=2)
    control.run()
    view = endpoints.get(control.ctx, "digits")
    assert (view.health, view.ready, view.serving_ref) == ("ready", 2, "digits@1")
    assert control.gateway.weights == {"digits": {"digits@1": 1.0}}
    agent = view.agents[0]
    assert list(agent.timings_s) == ["start", "import", "load", "warm", "gateway"]
    assert agent.pid in {each.process.pid for each in control.platform.agents.values()}


def test_the_manifest_tells_the_agent_everything(control: Control) -> None:
    control.deploy("ep", "digits@2", threads=1, memory_bytes=2**30)
    control.run(1)
    (agent,) = control.platform.agents.values()
    manifest = agent.manifest
    assert (manifest.endpoint, manifest.version_ref) == ("ep", "digits@2")
    assert manifest.artifact_dir.is_dir()
    assert manifest.limits.memory_bytes == 2**30
    assert manifest.rest_address == control.platform.addresses(manifest.agent_id).rest


def test_redeploying_moves_traffic_and_says_so_in_events(control: Control) -> None:
    control.deploy("digits", "digits@1")
    control.run()
    control.deploy("digits", "digits@2")
    control.run()
    assert control.gateway.weights == {"digits": {"digits@2": 1.0}}
    assert len(control.platform.agents) == 1
    said = [event.action for event in events.search(control.ctx, actor="controller").items]
    assert said.count("endpoint.switched") == 2
    assert said.count("agent.ready") == 2


def test_a_failed_agent_keeps_its_reason_and_last_lines(control: Control) -> None:
    control.platform.first_phase = "loading"
    control.deploy("digits", "digits@1")
    control.run(1)
    (agent_id,) = control.platform.agents
    control.platform.logs[agent_id] = [f"line {n}" for n in range(30)]
    control.platform.end(agent_id, 3, "the file is cut off")
    control.run(1)
    failed = next(agent for agent in control.agents() if agent.id == agent_id)
    assert (failed.phase, failed.reason, failed.exit_code) == (AgentPhase.FAILED, "the file is cut off", 3)
    assert failed.log_tail == [f"line {n}" for n in range(10, 30)]
    assert len(control.platform.agents) == 1, "replaced at once the first time"


def test_what_cannot_be_started_fails_with_a_reason_and_backs_off(control: Control) -> None:
    control.platform.refuse = "no memory left for another process"
    control.deploy("digits", "digits@1")
    control.run(40)
    rows = control.agents()
    assert {row.phase for row in rows} == {AgentPhase.FAILED}
    assert 3 <= len(rows) <= 6
    assert "no memory left" in (rows[0].reason or "")
    assert endpoints.get(control.ctx, "digits").health == "crash loop"


def test_missing_files_fail_the_agent_and_not_the_controller(control: Control) -> None:
    import shutil

    control.deploy("digits", "digits@1")
    shutil.rmtree(control.ctx.settings.artifacts_dir)
    control.run(1)
    assert "missing from the artefact store" in (control.agents()[0].reason or "")


def test_a_lost_reply_starts_nothing_twice(control: Control) -> None:
    control.platform.lose_replies = True
    control.deploy("digits", "digits@1")
    control.run(3)
    control.platform.lose_replies = False
    control.controller = control.new_controller("second")
    control.clock.now += LEASE_S
    control.run()
    assert list(control.platform.started.values()) == [1]
    assert control.gateway.weights == {"digits": {"digits@1": 1.0}}


def test_a_new_controller_adopts_and_restarts_nothing(control: Control) -> None:
    control.deploy("digits", "digits@1", replicas=2)
    control.run()
    before = dict(control.platform.running())
    control.controller = control.new_controller("second")
    control.clock.now += LEASE_S + 0.1
    control.run()
    assert control.platform.running() == before
    assert set(control.platform.started.values()) == {1}


def test_one_leads_and_the_other_takes_over_when_its_lease_runs_out(control: Control) -> None:
    first, second = control.controller, control.new_controller("second")
    assert first.tick()
    assert not second.tick()
    control.clock.now += LEASE_S + 0.1
    assert second.tick()
    assert not first.tick()


def test_a_released_lease_is_taken_at_once(control: Control) -> None:
    first = Lease(control.ctx.engine, lease_s=LEASE_S, clock=control.clock, holder="a")
    second = Lease(control.ctx.engine, lease_s=LEASE_S, clock=control.clock, holder="b")
    assert first.hold()
    assert not second.hold()
    first.release()
    assert second.hold()


def test_a_leader_that_slept_too_long_can_write_nothing(control: Control) -> None:
    old = Lease(control.ctx.engine, lease_s=LEASE_S, clock=control.clock, holder="old")
    assert old.hold()
    asleep_at = control.clock.now
    control.clock.now += LEASE_S + 0.1
    new = Lease(control.ctx.engine, lease_s=LEASE_S, clock=control.clock, holder="new")
    assert new.hold()
    assert (new.token or 0) > 1
    control.clock.now = asleep_at  # its own idea of time has stood still too
    old.token = 1
    with pytest.raises(LeaseLostError), old.write() as db:
        db.execute(text("DELETE FROM endpoints"))
    old.token = 1
    with pytest.raises(LeaseLostError):
        old.check()


def test_a_write_that_fails_changes_nothing(control: Control) -> None:
    control.deploy("digits", "digits@1")
    lease = Lease(control.ctx.engine, lease_s=LEASE_S, clock=control.clock, holder="a")
    with pytest.raises(LeaseLostError), lease.write() as db:
        db.execute(text("DELETE FROM endpoints"))
    with session.read(control.ctx.engine) as db:
        assert db.query(Endpoint).count() == 1


def test_a_deleted_endpoint_goes_with_its_agents_and_its_events_stay(control: Control) -> None:
    control.deploy("digits", "digits@1", replicas=2)
    control.run()
    endpoints.delete(control.ctx, "digits", actor="ana")
    control.run()
    with pytest.raises(NotFoundError):
        endpoints.get(control.ctx, "digits")
    assert control.platform.agents == {}
    assert control.agents() == []
    assert any(
        e.action == "endpoint.removed" for e in events.search(control.ctx, subject="endpoint/digits").items
    )


def test_a_silent_gateway_stops_nothing_and_publishes_later(control: Control) -> None:
    control.gateway.live = False
    control.deploy("digits", "digits@1")
    control.run()
    assert control.gateway.weights == {}
    control.gateway.live = True
    control.run()
    assert control.gateway.weights == {"digits": {"digits@1": 1.0}}


def test_an_orderly_end_is_no_crash(control: Control) -> None:
    control.deploy("digits", "digits@1")
    control.run()
    shutdown.end_agents(control.platform, lambda: False)
    assert control.platform.agents == {}
    control.clock.now += LEASE_S + 0.1
    lease = Lease(control.ctx.engine, lease_s=LEASE_S, clock=control.clock, holder="supervisor")
    assert shutdown.record_ended(lease, control.clock.now) == 1
    control.run()
    assert [row.phase for row in control.agents()] == [AgentPhase.STOPPED, AgentPhase.READY]


def test_old_agents_are_forgotten_with_their_logs(control: Control) -> None:
    control.platform.refuse = "nothing starts here"
    control.deploy("digits", "digits@1")
    control.run(60, pause_s=5)
    rows = control.agents()
    assert len(rows) > 4
    forgotten = forget_old_agents(control.ctx.engine, control.platform, kept=2)
    assert len(forgotten) == len(rows) - 2
    assert [row.id for row in control.agents()] == [row.id for row in rows[-2:]]
    with session.read(control.ctx.engine) as db:
        assert db.query(Agent).count() == 2


def test_the_loop_ends_when_told_and_gives_its_lease_back(control: Control) -> None:
    controller = control.controller
    thread = threading.Thread(target=controller.run)
    thread.start()
    controller.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert control.new_controller("next").tick()


def _registry_down() -> NoReturn:
    raise UnavailableError("The registry does not answer")


@contextmanager
def _no_session(_engine: Engine) -> Iterator[Session]:
    _registry_down()
    yield


def test_a_registry_that_fails_in_a_start_is_no_failure_of_the_model(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.deploy("digits", "digits@1")
    with monkeypatch.context() as patch:
        patch.setattr(assignments, "manifest", lambda *_: _registry_down())
        assert not control.controller.tick()
    with monkeypatch.context() as patch:
        patch.setattr(records, "record_process", lambda *_: _registry_down())
        assert not control.controller.tick()
    assert [row.phase for row in control.agents()] == [AgentPhase.STARTING]
    control.run()
    assert [row.phase for row in control.agents()] == [AgentPhase.READY]
    assert list(control.platform.started.values()) == [1]


def test_the_loop_ends_although_the_registry_is_gone(
    control: Control, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session, "write", _no_session)
    control.controller.stop()
    control.controller.run()
    assert "the lease could not be given back: The registry does not answer" in caplog.text


def with_work(control: Control, work: Periodic) -> Controller:
    """A controller like the one of *control*, with periodic work beside its ticks."""
    made = control.new_controller("busy")
    return Controller(made._lease, made._observer, made._executor, tick_s=0.01, periodic=(work,))


def test_rare_work_is_done_soon_after_the_start(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "FIRST_RUN_S", 0.02)
    ran = threading.Event()
    controller = with_work(control, Periodic("housekeeping", 3600.0, lambda _now: ran.set()))
    thread = threading.Thread(target=controller.run)
    thread.start()
    try:
        assert ran.wait(10)
    finally:
        controller.stop()
        thread.join(60)
    assert not thread.is_alive()


def test_the_loop_returns_after_the_work_under_way(control: Control) -> None:
    begun, told = threading.Event(), threading.Event()
    steps: list[str] = []

    def work(_now: float) -> None:
        begun.set()
        told.wait(10)
        time.sleep(0.2)  # longer than the loop takes to end
        steps.append("work done")

    controller = with_work(control, Periodic("collecting", 0.01, work))

    def lead() -> None:
        controller.run()
        steps.append("loop over")

    thread = threading.Thread(target=lead)
    thread.start()
    assert begun.wait(10)
    controller.stop()
    told.set()
    thread.join(60)
    assert steps == ["work done", "loop over"]


def test_an_envoy_that_takes_too_long_to_check_is_unavailable(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "envoy"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o700)
    settings = control.ctx.settings.model_copy(update={"envoy_bin": slow})
    settings.gateway_dir.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(envoy, "VALIDATE_TIMEOUT_S", 0.1)
    with pytest.raises(UnavailableError, match=r"Envoy did not check the change within 0\.1 s"):
        envoy.validate_clusters(settings, [])
