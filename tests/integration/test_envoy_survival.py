"""Under load through a real Envoy: nothing that agents, versions or the controller do loses a request."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from control_plane.config import Settings
from control_plane.errors import UnavailableError
from control_plane.gateway import envoy_process
from control_plane.gateway.envoy import EnvoyGateway
from control_plane.gateway.traffic_plan import Backend, Replica, TrafficPlan
from tests.fakes import upstream
from tests.fakes.envoy import RunningEnvoy, plan, running_envoy
from tests.fakes.load import Load
from tests.fakes.stack import free_ports, settings_for
from tests.fakes.upstream import Upstream
from tests.fakes.waiting import wait_until

Start = Callable[[str, str], Upstream]


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEnvoy]:
    with running_envoy(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
def start(tmp_path: Path, envoy: RunningEnvoy) -> Iterator[Start]:
    """Start an agent of a version; all end with the test, after the gateway has forgotten them."""
    running: list[Upstream] = []

    def start_one(agent: str, version: str) -> Upstream:
        running.append(upstream.start(tmp_path, agent, version, delay_s=0.005))
        return running[-1]

    yield start_one
    envoy.gateway.publish_routes([])
    envoy.gateway.publish_backends([])
    for each in running:
        each.kill()


def load(envoy: RunningEnvoy, endpoint: str = "digits") -> Load:
    return Load(f"{envoy.url}/e/{endpoint}/predict", {}, lambda answer: None)


def test_a_switch_of_versions_loses_nothing(envoy: RunningEnvoy, start: Start) -> None:
    old, new = start("a", "digits@1").replica, start("b", "digits@2").replica
    envoy.apply(plan("digits", v1=(1.0, [old])))
    with load(envoy) as running:
        for shares in ((0.9, 0.1), (0.5, 0.5), (0.0, 1.0), (1.0, 0.0), (0.0, 1.0)):
            envoy.apply(plan("digits", v1=(shares[0], [old]), v2=(shares[1], [new])))
            running.wait_for_more(50)
        envoy.apply(plan("digits", v2=(1.0, [new])))
        running.wait_for_more(50)

    assert running.failures == []
    assert httpx.get(f"{envoy.url}/e/digits/x").json()["version"] == "digits@2"


def test_a_killed_agent_of_two_loses_nothing(envoy: RunningEnvoy, start: Start) -> None:
    dying, staying = start("a", "digits@1"), start("b", "digits@1")
    envoy.apply(plan("digits", v1=(1.0, [dying.replica, staying.replica])))
    with load(envoy) as running:
        dying.kill()
        running.wait_for_more(300)
        envoy.wait_healthy("digits", "digits@1", 1)

    assert running.failures == []


def test_a_version_dead_at_half_the_weight_loses_nothing(envoy: RunningEnvoy, start: Start) -> None:
    dying, staying = start("a", "digits@1"), start("b", "digits@2")
    envoy.apply(plan("digits", v1=(0.5, [dying.replica]), v2=(0.5, [staying.replica])))
    with load(envoy) as running:
        dying.kill()
        running.wait_for_more(300)

    assert running.failures == []


def test_a_replica_taken_out_and_killed_loses_nothing(envoy: RunningEnvoy, start: Start) -> None:
    agents = [start(name, "digits@1") for name in "abc"]
    envoy.apply(plan("digits", v1=(1.0, [agent.replica for agent in agents])))
    with load(envoy) as running:
        for leaving in agents[:2]:
            agents.remove(leaving)
            envoy.apply(plan("digits", v1=(1.0, [agent.replica for agent in agents])))
            leaving.kill()
            running.wait_for_more(100)

    assert running.failures == []


def test_a_refused_change_leaves_the_old_in_force(envoy: RunningEnvoy, start: Start) -> None:
    agent = start("a", "digits@1").replica
    good = plan("digits", v1=(1.0, [agent]))
    envoy.apply(good)
    unusable = Replica("z", f"unix:/{'x' * 200}", "unix:/z")
    bad = TrafficPlan("bad", (Backend("digits@9", (unusable,), 1.0),))

    with load(envoy) as running, pytest.raises(UnavailableError, match="Envoy refused the change"):
        envoy.gateway.publish_backends([good, bad])

    assert running.failures == []
    state = envoy.gateway.observe()
    assert set(state.backends) == {("digits", "digits@1")}
    assert "Envoy refused the change" in str(state.problem)


def test_a_change_only_envoy_can_refuse_is_taken_back(envoy: RunningEnvoy, start: Start) -> None:
    agent = start("a", "digits@1").replica
    good = plan("digits", v1=(1.0, [agent]))
    envoy.apply(good)
    kept = (envoy.settings.gateway_dir / "rds" / "public.json").read_bytes()
    negative = TrafficPlan("digits", good.backends, timeout_s=-1.0)

    with pytest.raises(UnavailableError, match="Envoy refused the change: "):
        envoy.gateway.publish_routes([negative])

    assert (envoy.settings.gateway_dir / "rds" / "public.json").read_bytes() == kept
    assert envoy.gateway.observe().weights == {"digits": {"digits@1": 1.0}}
    assert httpx.get(f"{envoy.url}/e/digits/x").status_code == 200


def test_a_killed_envoy_serves_again_from_its_files(envoy: RunningEnvoy, start: Start) -> None:
    envoy.apply(plan("digits", v1=(1.0, [start("a", "digits@1").replica])))

    def answers() -> bool:
        try:
            return httpx.get(f"{envoy.url}/e/digits/x").status_code == 200
        except httpx.TransportError:
            return False

    assert answers()
    envoy.kill()
    assert not answers()
    envoy.start()
    wait_until(answers, timeout_s=20, what=envoy.log, pause_s=0.01)


def test_a_new_controller_goes_on_where_the_old_one_stopped(envoy: RunningEnvoy, start: Start) -> None:
    agent = start("a", "digits@1").replica
    envoy.apply(plan("digits", v1=(1.0, [agent])))

    restarted = EnvoyGateway(envoy.settings)

    assert restarted.observe().weights == {"digits": {"digits@1": 1.0}}
    version = (envoy.settings.gateway_dir / "cds.json").read_bytes()
    restarted.publish_backends([plan("digits", v1=(1.0, [agent]))])
    assert (envoy.settings.gateway_dir / "cds.json").read_bytes() == version


def test_a_running_envoy_is_found_and_only_by_its_own_home(envoy: RunningEnvoy, tmp_path: Path) -> None:
    assert envoy_process.find_running(envoy.settings) == envoy.pid
    assert envoy_process.find_running(settings_for(tmp_path)) is None


def test_a_port_held_by_another_program_is_named(envoy: RunningEnvoy, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, gateway_port=envoy.settings.gateway_port)

    with pytest.raises(UnavailableError, match=f"port {envoy.settings.gateway_port} is in use"):
        envoy_process.prepare_files(settings)


def test_preparing_again_keeps_backends_and_routes(envoy: RunningEnvoy, start: Start) -> None:
    envoy.apply(plan("digits", v1=(1.0, [start("a", "digits@1").replica])))
    folder = envoy.settings.gateway_dir
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}

    envoy_process.prepare_files(envoy.settings)

    assert {path: path.read_bytes() for path in folder.rglob("*.json")} == before


def test_a_broken_file_is_replaced_by_the_last_good_one(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    envoy_process.prepare_files(settings)
    cds = settings.gateway_dir / "cds.json"
    good = cds.read_bytes()
    os.link(cds, settings.gateway_dir / "cds.json.good")
    cds.unlink()
    cds.write_text("{")

    envoy_process.prepare_files(settings)

    assert cds.read_bytes() == good


def test_a_changed_port_moves_the_listener(tmp_path: Path) -> None:
    with running_envoy(tmp_path) as envoy:
        (port,) = free_ports(1)
        moved = envoy.settings.model_copy(update={"gateway_port": port})
        envoy_process.prepare_files(moved)

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/v2/health/live").status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, timeout_s=10, what=envoy.log)
