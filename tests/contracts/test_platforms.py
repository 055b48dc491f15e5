"""What every platform promises, asked of real processes and of the fake one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from control_plane.config import Settings
from control_plane.errors import InvalidInputError
from control_plane.platforms import catalog
from control_plane.platforms.base import Platform
from control_plane.platforms.local import LocalPlatform
from serving_agent.contract.manifest import Manifest
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes.platform import FakePlatform
from tests.fakes.waiting import wait_until


@dataclass
class Subject:
    """A platform, another controller's view of the same machine, and how to make its agents end."""

    platform: Platform
    successor: Callable[[], Platform]
    manifest: Callable[[str], Manifest]


def manifest_for(platform: Platform, folder: Path) -> Callable[[str], Manifest]:
    """Manifests of a model that is not there: such agents start, fail and say why."""
    any_rows = (TensorSpec("x", "FP32", (-1, 4)),)

    def make(agent_id: str) -> Manifest:
        addresses = platform.addresses(agent_id)
        return Manifest(
            agent_id=agent_id,
            endpoint="double",
            model="double",
            version=1,
            digest="sha256:" + "0" * 64,
            format="torchscript",
            handler="tensor",
            artifact_dir=folder / "missing",
            signature=Signature(any_rows, any_rows),
            rest_address=addresses.rest,
            grpc_address=addresses.grpc,
        )

    return make


@pytest.fixture(params=["local", "fake"])
def subject(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Subject]:
    if request.param == "fake":
        fake = FakePlatform()
        yield Subject(fake, lambda: fake, manifest_for(fake, tmp_path))
        return
    settings = Settings(home=tmp_path / "home")
    local = catalog.create("local", settings)
    yield Subject(local, lambda: LocalPlatform(settings), manifest_for(local, tmp_path))
    for agent_id in local.running():
        local.kill(agent_id)
    wait_until(lambda: not local.running(), timeout_s=10, what=lambda: str(local.running()))


def gone(platform: Platform, agent_id: str) -> None:
    wait_until(
        lambda: agent_id not in platform.running(), timeout_s=20, what=lambda: f"{agent_id} still runs"
    )


def test_what_was_started_runs(subject: Subject) -> None:
    process = subject.platform.start(subject.manifest("one"))
    assert subject.platform.running() == {"one": process}


def test_starting_twice_starts_once(subject: Subject) -> None:
    first = subject.platform.start(subject.manifest("one"))
    assert subject.platform.start(subject.manifest("one")) == first


def test_a_successor_finds_what_runs_and_does_not_start_it_again(subject: Subject) -> None:
    first = subject.platform.start(subject.manifest("one"))
    successor = subject.successor()
    assert successor.running()["one"].pid == first.pid
    assert successor.start(subject.manifest("one")).pid == first.pid


def test_stopping_ends_it_and_may_be_repeated(subject: Subject) -> None:
    subject.platform.start(subject.manifest("one"))
    subject.platform.stop("one")
    subject.platform.stop("one")
    gone(subject.platform, "one")
    subject.platform.stop("one")
    assert subject.platform.exit_of("one") is not None


def test_killing_ends_it_and_says_so(subject: Subject) -> None:
    subject.platform.start(subject.manifest("one"))
    subject.platform.kill("one")
    gone(subject.platform, "one")
    subject.platform.kill("one")
    end = subject.platform.exit_of("one")
    assert end is not None
    assert (end.code, "SIGKILL" in end.reason) == (-9, True)


def test_unknown_ids_are_no_error(subject: Subject) -> None:
    subject.platform.stop("nobody")
    subject.platform.kill("nobody")
    subject.platform.forget("nobody")
    assert subject.platform.exit_of("nobody") is None
    assert subject.platform.log_tail("nobody") == ()


def test_a_running_agent_has_no_exit(subject: Subject) -> None:
    subject.platform.start(subject.manifest("one"))
    assert subject.platform.exit_of("one") is None


def test_what_was_forgotten_is_unknown(subject: Subject) -> None:
    subject.platform.start(subject.manifest("one"))
    subject.platform.kill("one")
    gone(subject.platform, "one")
    subject.platform.forget("one")
    assert subject.platform.exit_of("one") is None
    assert subject.platform.log_tail("one") == ()


def test_two_agents_have_different_addresses(subject: Subject) -> None:
    one, two = subject.platform.addresses("one"), subject.platform.addresses("two")
    assert len({one.rest, one.grpc, two.rest, two.grpc}) == 4


def test_the_end_of_an_agent_is_told(subject: Subject) -> None:
    told = threading.Event()
    subject.platform.watch(told.set)
    subject.platform.start(subject.manifest("one"))
    subject.platform.kill("one")
    assert told.wait(10)


def test_an_unknown_platform_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        catalog.create("mainframe", Settings(home=tmp_path))
    assert "local" in str(caught.value.next_step)


def test_every_platform_file_is_in_the_catalogue() -> None:
    folder = Path(catalog.__file__).parent
    helpers = {"__init__", "base", "catalog", "exits", "exit_watch", "log_files"}
    assert {path.stem for path in folder.glob("*.py")} - helpers == set(catalog.names())


class TestLocalAlone:
    """Promises that only real processes can break."""

    @pytest.fixture
    def subject(self, tmp_path: Path) -> Iterator[Subject]:
        settings = Settings(home=tmp_path / "home")
        local = LocalPlatform(settings)
        settings.run_dir.mkdir(parents=True)
        yield Subject(local, lambda: LocalPlatform(settings), manifest_for(local, tmp_path))
        for agent_id in local.running():
            local.kill(agent_id)
        wait_until(lambda: not local.running(), timeout_s=10, what=lambda: str(local.running()))

    def test_a_failed_start_is_explained_by_the_agent_itself(self, subject: Subject) -> None:
        subject.platform.start(subject.manifest("one"))
        gone(subject.platform, "one")
        end = subject.platform.exit_of("one")
        assert end is not None
        assert end.code == 3
        assert "exit code" not in end.reason
        assert subject.platform.log_tail("one")

    def test_an_agent_leads_its_own_session(self, subject: Subject) -> None:
        import os

        process = subject.platform.start(subject.manifest("one"))
        assert os.getsid(process.pid) == process.pid

    def test_no_zombie_is_left(self, subject: Subject) -> None:
        process = subject.platform.start(subject.manifest("one"))
        subject.platform.kill("one")
        gone(subject.platform, "one")
        assert not psutil.pid_exists(process.pid)

    def test_another_home_sees_nothing(self, subject: Subject, tmp_path: Path) -> None:
        subject.platform.start(subject.manifest("one"))
        assert LocalPlatform(Settings(home=tmp_path / "other")).running() == {}
