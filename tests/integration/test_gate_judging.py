"""Uploads are judged and converted in a confined process, whatever becomes of that process."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner, Result

from control_plane.admission import gate, judging
from control_plane.admission.base import Accepted, Refusal, Refused
from control_plane.admission.reasons import ReasonCode
from control_plane.cli.app import app
from control_plane.errors import SignalboxError
from tests.corpus import hostile, protobuf
from tests.corpus.opcodes import mapping, pickled, tensor, torch_zip

STATE_DICT = torch_zip(pickled(mapping({"layer.weight": tensor()})))
FORBIDDEN = {
    "torch", "numpy", "pickle", "_pickle", "jinja2", "transformers", "safetensors", "marshal_", "sqlalchemy",
    "pydantic", "asyncio", "ssl", "socket", "multiprocessing",
}  # fmt: skip


@pytest.fixture
def upload(tmp_path: Path) -> Path:
    folder = tmp_path / "upload"
    folder.mkdir()
    return folder


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def tgz(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_process_imports_nothing_that_runs_content() -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; "
        "from control_plane.admission import catalog, judge_process; catalog.formats(); "
        "print(*sys.modules)"
    )
    roots = map(str, judging.ROOTS)
    command = [sys.executable, "-I", "-S", "-c", code, *roots]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "control_plane.admission.judge_process" in loaded
    assert not FORBIDDEN & loaded


def test_small_file_takes_little_memory(upload: Path, scratch: Path) -> None:
    (upload / "m.pt").write_bytes(STATE_DICT)
    judged = judging.examine(upload, scratch)
    assert 0 < judged.peak_bytes < 256 * 1024**2
    assert judged.level in ("S0", "S0 partly", "limits only")


def test_verdict_crosses_with_names_types_and_shapes(upload: Path, scratch: Path) -> None:
    (upload / "m.pt").write_bytes(STATE_DICT)
    verdict = judging.judge(upload, scratch)
    here = gate.judge(upload)
    assert isinstance(verdict, Accepted)
    assert isinstance(here, Accepted)
    (held,), (ours,) = verdict.weights, here.weights
    assert held.name == ours.name
    assert [(each.name, each.dtype, each.shape) for each in held.tensors] == [("layer.weight", "F32", (2, 2))]
    assert held.tensors[0].pieces == ()
    assert (verdict.format, verdict.needs, verdict.decision) == (here.format, here.needs, here.decision)


def test_refusal_crosses_whole(upload: Path, scratch: Path) -> None:
    (upload / "m.tgz").write_bytes(tgz("a/evil.py", b"import os"))
    verdict = judging.judge(upload, scratch)
    (scratch.parent / "other").mkdir()
    assert verdict == gate.judge(upload, scratch.parent / "other")
    assert isinstance(verdict, Refused)
    assert verdict.file == "m.tgz!/a/evil.py"


def test_one_file_is_judged_where_it_lies(upload: Path, scratch: Path) -> None:
    (upload / "m.pt").write_bytes(STATE_DICT)
    (upload / "other.py").write_bytes(b"import os")
    assert judging.judge(upload / "m.pt", scratch).decision == "convert"


def test_weights_are_written_anew(upload: Path, scratch: Path, target: Path) -> None:
    (upload / "m.tgz").write_bytes(tgz("a/m.pt", STATE_DICT))
    verdict = judging.convert(upload, scratch, target)
    assert verdict.converted
    content = (target / "model.safetensors").read_bytes()
    assert content.endswith(bytes(range(16)))
    assert [path.name for path in target.iterdir()] == ["model.safetensors"]


def test_kept_files_are_linked(upload: Path, scratch: Path, target: Path) -> None:
    (upload / "m.onnx").write_bytes(protobuf.model())
    verdict = judging.convert(upload, scratch, target)
    assert verdict.decision == "sandbox"
    assert (target / "model.onnx").samefile(upload / "m.onnx")


def test_damage_is_found_by_the_conversion(upload: Path, scratch: Path, target: Path) -> None:
    damaged = STATE_DICT.replace(bytes(range(16)), bytes(16))
    (upload / "m.pt").write_bytes(damaged)
    with pytest.raises(Refusal) as caught:
        judging.convert(upload, scratch, target)
    assert caught.value.refused.code == ReasonCode.BROKEN_ARCHIVE
    assert list(target.iterdir()) == []
    assert judging.examine(upload, scratch).verdict.code == ReasonCode.BROKEN_ARCHIVE


def test_conversion_of_what_is_refused_raises(upload: Path, scratch: Path, target: Path) -> None:
    (upload / "m.py").write_bytes(b"import os")
    with pytest.raises(Refusal) as caught:
        judging.convert(upload, scratch, target)
    assert caught.value.refused == gate.judge(upload)


def large_zip(upload: Path) -> None:
    with zipfile.ZipFile(upload / "m.zip", "w") as archive:
        archive.writestr("model.safetensors", os.urandom(64 * 1024**2))


def children() -> set[psutil.Process]:
    """This process's children: those that fixtures of other tests keep running among them."""
    return set(psutil.Process().children())


def test_progress_is_told_and_may_end_the_check(upload: Path, scratch: Path) -> None:
    large_zip(upload)
    before = children()

    def stop(_stage: str, done: float) -> None:
        assert 0 <= done <= 1
        assert children() - before
        raise InterruptedError

    with pytest.raises(InterruptedError):
        judging.judge(upload, scratch, progress=stop)
    assert children() <= before


def becomes(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(
        judging, "BOOT", f"import os, signal, sys; sys.stdin.read(); fd = int(sys.argv[1]); {code}"
    )


def test_end_by_a_limit_is_a_refusal(upload: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (upload / "m.pt").write_bytes(STATE_DICT)
    for name, what in (("SIGKILL", "more memory"), ("SIGXCPU", "more processor time")):
        becomes(monkeypatch, f"os.kill(os.getpid(), signal.{name})")
        verdict = judging.judge(upload, scratch)
        assert isinstance(verdict, Refused)
        assert verdict.code == ReasonCode.CHECK_EXCEEDED_LIMITS
        assert what in verdict.message


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGSYS", "SIGABRT"])
def test_crash_is_a_fault_of_ours_with_its_own_sentence(
    name: str, upload: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (upload / "m.pt").write_bytes(STATE_DICT)
    becomes(monkeypatch, f"os.kill(os.getpid(), signal.{name})")
    with pytest.raises(SignalboxError, match=rf"its process crashed \({name}\)"):
        judging.judge(upload, scratch)


def test_endless_check_is_a_refusal(upload: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (upload / "m.pt").write_bytes(STATE_DICT)
    monkeypatch.setattr(judging, "BASE_WALL_S", 0.5)
    becomes(monkeypatch, "signal.pause()")
    before = children()
    assert judging.judge(upload, scratch).code == ReasonCode.CHECK_EXCEEDED_LIMITS
    assert children() <= before


def test_want_of_memory_is_a_refusal(upload: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nones = b"](" + b"N" * 2_500_000 + b"e"
    (upload / "m.pt").write_bytes(torch_zip(pickled(mapping({"w": tensor(), "x": nones}))))
    monkeypatch.setattr(judging, "MEMORY_BYTES", 24 * 1024**2)
    assert judging.judge(upload, scratch).code == ReasonCode.CHECK_EXCEEDED_LIMITS


FAULTS = {
    "exit code": "sys.exit(1)",
    "silence": "sys.exit(0)",
    "garbage": "os.write(fd, b'{]\\n')",
    "no verdict": 'os.write(fd, b\'{"type": "ended"}\\n\')',
    "full disk": 'os.write(fd, b\'{"type": "ended", "fault": "No space left on device"}\\n\')',
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_ours_is_no_verdict(
    fault: str, upload: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (upload / "m.pt").write_bytes(STATE_DICT)
    becomes(monkeypatch, FAULTS[fault])
    with pytest.raises(SignalboxError, match="the check itself failed"):
        judging.judge(upload, scratch)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.bin", "/etc/passwd"),
        ("../model.bin", "{upload}/m.pt"),
        ("/model.bin", "{upload}/m.pt"),
        ("", "{upload}/m.pt"),
    ],
    ids=["outside", "up", "absolute", "nameless"],
)
def test_what_the_process_names_is_checked(
    name: str, place: str, upload: Path, scratch: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (upload / "m.pt").write_bytes(STATE_DICT)
    accepted: dict[str, Any] = {
        "format": "onnx",
        "handler": "tensor",
        "signature": None,
        "program": True,
        "stored": [],
    }
    said = {"type": "ended", "accepted": accepted, "sources": [[name, place.format(upload=upload)]]}
    becomes(monkeypatch, f"os.write(fd, {json.dumps(said).encode()!r} + b'\\n')")
    with pytest.raises(SignalboxError, match="does not belong to the upload"):
        judging.convert(upload, scratch, target)
    assert list(target.iterdir()) == []


# signalbox gate


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["gate", *words])


CASES = {
    "state dict": ("m.pt", STATE_DICT, "convert", 0),
    "weights": ("m.safetensors", hostile.safetensors({"w": hostile._entry()}), "accept", 0),
    "program": ("m.onnx", protobuf.model(), "sandbox", 3),
    "source": ("m.py", b"import os", "refuse", 4),
    "unknown": ("name with spaces", b"x", "refuse", 4),
}


@pytest.mark.parametrize("case", CASES)
def test_last_word_and_exit_code_are_the_verdict(case: str, upload: Path) -> None:
    name, content, verdict, code = CASES[case]
    (upload / name).write_bytes(content)
    for path in (upload / name, upload):
        done = run(str(path))
        assert done.exit_code == code, done.output
        assert done.stdout.splitlines()[-1].split()[-1] == verdict


def document(*words: str) -> dict[str, Any]:
    done = run(*words, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_document_explains_a_refusal(upload: Path) -> None:
    (upload / "m.tgz").write_bytes(tgz("a/evil.py", b"import os"))
    found = document(str(upload / "m.tgz"))
    assert found["verdict"] == "refuse"
    assert found["code"] == "source-code"
    assert found["file"] == "m.tgz!/a/evil.py"
    assert found["message"]
    assert found["next_step"]
    assert found["gate_version"] == gate.VERSION


def test_document_tells_what_is_kept_and_left_out(upload: Path) -> None:
    value = mapping({"state_dict": mapping({"w": tensor()}), "epoch": b"K\x03"})
    (upload / "m.pt").write_bytes(torch_zip(pickled(value)))
    found = document(str(upload / "m.pt"))
    assert (found["verdict"], found["tensors"], found["weights_bytes"]) == ("convert", 1, 16)
    assert found["needs"] == ["architecture"]
    assert [each["path"] for each in found["left_out"]] == ["m.pt!/epoch"]


def test_path_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    assert run(str(tmp_path / "nothing")).exit_code == 2
