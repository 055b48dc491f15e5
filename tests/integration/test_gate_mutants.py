"""A short run of `benchmarks.gate_mutants`: no error, hang or signal, and conversions that can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gate_mutants
from control_plane.admission import gate
from tests.corpus import hostile, malicious, protobuf
from tests.corpus.case import Case, one_file
from tests.corpus.opcodes import legacy, mapping, pickled, tensor, torch_zip

COUNT = 1500
GOOD = pickled(mapping({"a": tensor(), "b": tensor((4,), (1,)), "c": tensor((), ())}))
BENIGN = [
    Case("zip", "benign", ("convert",), one_file("m.pt", lambda: torch_zip(GOOD))),
    Case("legacy", "benign", ("convert",), one_file("m.pt", lambda: legacy(GOOD))),
    Case("onnx", "benign", ("sandbox",), one_file("m.onnx", protobuf.model)),
    Case(
        "safetensors", "benign", ("accept",),
        one_file("m.safetensors", lambda: hostile.safetensors({"w": hostile._entry()})),
    ),
]  # fmt: skip


def corpus(home: Path) -> Path:
    """What can be made without torch: all hostile and malicious cases, and some benign ones."""
    told = []
    for case in (*malicious.cases(home / "MARKER"), *hostile.cases(), *BENIGN):
        (home / case.name).mkdir()
        case.write(home / case.name)
        told.append({"name": case.name, "kind": case.kind})
    (home / "corpus.json").write_text(json.dumps(told))
    return home


def test_mutants_neither_break_nor_trick_the_gate(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    outcome = gate_mutants.work_off(corpus(tmp_path / "corpus"), seed=20, count=COUNT, workers=2)
    assert outcome.problems == []
    assert outcome.decisions.total() == COUNT
    assert outcome.decisions["refuse"] > outcome.decisions["convert"] > 0
    assert not (tmp_path / "corpus" / "MARKER").exists()


def test_mutants_are_made_again_from_their_numbers(tmp_path: Path) -> None:
    uploads = [{"m.pt": torch_zip(pickled(mapping({"w": tensor()})))}, {"m.onnx": protobuf.model()}]
    first = [gate_mutants.made(uploads, 3, number) for number in range(50)]
    assert first == [gate_mutants.made(uploads, 3, number) for number in range(50)]
    assert sum(each in uploads for each in first) < 10


def test_errors_and_hangs_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(folder: Path, _scratch: Path) -> None:
        if (folder / "hang").exists():
            while True:
                pass
        raise OSError("mine")

    monkeypatch.setattr(gate_mutants, "HANG_S", 0.05)
    monkeypatch.setattr(gate, "examine", judge)
    monkeypatch.setattr(gate_mutants, "made", lambda _u, _s, number: {"hang" if number else "x": b"x"})
    (said,) = gate_mutants.run([], 1, range(2), tmp_path / "one")
    assert [each["kind"] for each in said["problems"]] == ["error", "hang"]
