"""A program that is tried reaches no file outside and no network, and gets all that an honest one needs."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from control_plane.admission.base import Refusal, Refused
from control_plane.admission.reasons import ReasonCode
from control_plane.config import Settings
from control_plane.jobs import trial
from serving_agent.contract import architecture as architectures
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes import models

ROW = Signature((TensorSpec("x", "FP32", (-1, 3)),), ())
SECRET = b"0123456789abcdef"
CONFINE = (
    "import sys; from pathlib import Path; from control_plane.admission import isolation; "
    "print(isolation.confine(readable=[], writable=[], memory_bytes=2**30, cpu_s=5, file_bytes=1).level)"
)


@pytest.fixture(scope="module")
def whole() -> None:
    """Skips where this kernel cannot confine."""
    level = subprocess.run([sys.executable, "-c", CONFINE], capture_output=True, text=True, check=True).stdout
    if level.strip() != "S0":
        pytest.skip(f"this kernel gives {level.strip()!r} only")


class Reader(nn.Module):
    """Returns bytes of a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_file(self.path, False, 8, dtype=torch.uint8)


class Writer(nn.Module):
    """Makes a file, or writes into one, and returns what it holds."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_file(self.path, True, 8, dtype=torch.uint8).fill_(7)


class Parallel(nn.Module):
    """Works in threads of torch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        waiting = [torch.jit.fork(torch.mul, x, 2) for _ in range(8)]
        return torch.stack([torch.jit.wait(each) for each in waiting]).sum(0)


class Talkative(nn.Module):
    """Returns more outputs than a pipe holds descriptions of."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for index in range(2000):
            found["an output with quite a long name and the number " + str(index)] = x
        return found


def order(artifact_dir: Path, home: Path, **changes: Any) -> trial.Trial:
    given = {
        "settings": Settings(home=home),
        "format": "torchscript",
        "artifact_dir": artifact_dir,
        "signature": ROW,
        "memory_bytes": 4 * 1024**3,
    }
    return trial.Trial(**{**given, **changes})


def scripted(module: nn.Module, home: Path) -> trial.Trial:
    return order(models.save_torchscript(module, home / "artifact"), home)


def weights(network: str, home: Path, **arguments: Any) -> trial.Trial:
    """Weights of three ones in *network* of `tests.fakes.confined_networks`."""
    folder = home / "artifact"
    folder.mkdir()
    safetensors.torch.save_file({"weight": torch.ones(3)}, folder / architectures.WEIGHTS)
    given = architectures.Architecture(
        builder=f"tests.fakes.confined_networks:{network}", arguments=arguments
    )
    architectures.write(given, folder)
    return order(folder, home, format="state_dict")


def run(trying: trial.Trial) -> list[str]:
    """The outputs that trying found."""
    return [str(spec) for spec in trial.run(trying, lambda _stage, _done: None).outputs]


def refused(trying: trial.Trial) -> Refused:
    with pytest.raises(Refusal) as refusal:
        run(trying)
    return refusal.value.refused


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("where", ["outside", "/etc/passwd"])
def test_program_cannot_read_a_file_outside(where: str, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(SECRET)
    found = refused(scripted(Reader(str(tmp_path / where)), tmp_path))
    assert found.code == ReasonCode.DOES_NOT_RUN
    assert "Permission denied" in found.message or "unable to open file" in found.message


def test_program_reads_its_own_artefact(tmp_path: Path) -> None:
    assert run(scripted(Reader(str(tmp_path / "artifact" / "model.pt")), tmp_path)) == ["output:UINT8[8]"]


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("name", ["outside", "new", "artifact/model.pt"])
def test_program_cannot_write_outside(name: str, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(SECRET)
    trying = scripted(Writer(str(tmp_path / name)), tmp_path)
    before = (tmp_path / "artifact" / "model.pt").read_bytes()
    assert refused(trying).code == ReasonCode.DOES_NOT_RUN
    assert (tmp_path / "outside").read_bytes() == SECRET
    assert (tmp_path / "artifact" / "model.pt").read_bytes() == before
    assert not (tmp_path / "new").exists()


def test_program_writes_into_the_folder_that_goes_with_its_trial(tmp_path: Path) -> None:
    assert run(scripted(Writer("scratch"), tmp_path)) == ["output:UINT8[8]"]


def test_program_may_use_threads(tmp_path: Path) -> None:
    assert run(scripted(Parallel(), tmp_path)) == ["output:FP32[-1,3]"]


def test_answer_may_be_larger_than_a_pipe(tmp_path: Path) -> None:
    assert len(run(scripted(Talkative(), tmp_path))) == 2000


def test_network_of_the_operator_imports_and_runs_in_the_agents_environment(tmp_path: Path) -> None:
    assert run(weights("Curious", tmp_path)) == ["output:FP32[-1,3]"]


@pytest.mark.usefixtures("whole")
def test_every_thread_is_confined(tmp_path: Path) -> None:
    assert run(weights("Threaded", tmp_path)) == ["output:FP32[-1,3]"]


@pytest.mark.usefixtures("whole")
def test_network_of_the_operator_neither_connects_nor_starts_programs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert run(weights("Caller", tmp_path, port=server.getsockname()[1])) == ["output:FP32[-1,3]"]


def test_large_artefacts_have_more_time(tmp_path: Path) -> None:
    trying = scripted(nn.Identity(), tmp_path)
    assert trying.longest_s == trial.TIMEOUT_S
    with (trying.artifact_dir / "more").open("wb") as file:
        file.truncate(500 * 1024**2)
    assert trying.longest_s == trial.TIMEOUT_S + 10
