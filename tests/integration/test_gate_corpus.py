"""The whole corpus is judged as it must be: nothing malicious let in, nothing run, the benign bit-equal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from control_plane.admission import gate, judging, safetensors_writer
from control_plane.admission.base import Accepted, Refused, Verdict
from tests.corpus import make
from tests.corpus.case import Case, Tensors

SLOWEST_S = 2.0
IN_CHILD_EVERY = 11
"""Every so manieth case is also judged in the confined process."""


@dataclass(frozen=True)
class Judged:
    """A case, what the gate said, how long that took, and the weights that were written."""

    case: Case
    verdict: Verdict
    seconds: float
    expected: Tensors | None
    written: Mapping[str, torch.Tensor] | None


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def made(home: Path) -> Mapping[str, tuple[Case, Tensors | None]]:
    return make.make(home)


@pytest.fixture(scope="module")
def judged(
    home: Path, made: Mapping[str, tuple[Case, Tensors | None]], tmp_path_factory: pytest.TempPathFactory
) -> list[Judged]:
    work = tmp_path_factory.mktemp("work")
    return [
        _judge(case, make.upload(home / case.name), expected, work / case.name)
        for case, expected in made.values()
    ]


def _judge(case: Case, upload: Path, expected: Tensors | None, work: Path) -> Judged:
    (work / "scratch").mkdir(parents=True)
    started = time.process_time()
    examined = gate.examine(upload, work / "scratch")
    seconds = time.process_time() - started
    benign = case.kind == "benign" and isinstance(examined.verdict, Accepted)
    written = _written(examined, work / "artifact") if benign else None
    return Judged(case, examined.verdict, seconds, expected, written)


def _written(examined: gate.Examined, target: Path) -> dict[str, torch.Tensor]:
    """The artefact's weights as safetensors itself reads them."""
    verdict = examined.verdict
    assert isinstance(verdict, Accepted)
    target.mkdir()
    found: dict[str, torch.Tensor] = {}
    for file in verdict.weights:
        safetensors_writer.write(file.tensors, target / file.name)
        found.update(load_file(target / file.name))
    locations = {each.path: each.location for each in examined.received}
    for name, path in verdict.stored:
        if name.endswith(".safetensors"):
            found.update(load_file(locations[path]))
    return found


def test_corpus_is_large_and_of_every_kind(made: Mapping[str, tuple[Case, Tensors | None]]) -> None:
    kinds = [case.kind for case, _ in made.values()]
    assert kinds.count("malicious") >= 100
    assert kinds.count("hostile") >= 80
    assert kinds.count("benign") >= 80


def test_every_verdict_is_right(judged: list[Judged]) -> None:
    wrong = [
        f"{each.case.name}: {each.verdict.decision} ({getattr(each.verdict, 'message', each.verdict.code)})"
        for each in judged
        if each.verdict.decision not in each.case.verdicts
    ]
    assert wrong == []


def test_refusals_give_the_expected_reason(judged: list[Judged]) -> None:
    wrong = [
        f"{each.case.name}: {each.verdict.code}"
        for each in judged
        if each.verdict.decision == "refuse" and each.case.codes and each.verdict.code not in each.case.codes
    ]
    assert wrong == []


def test_no_payload_ran(judged: list[Judged], home: Path) -> None:
    assert judged
    assert not (home / make.MARKER).exists()


def test_refusals_explain_themselves(judged: list[Judged]) -> None:
    for each in judged:
        if isinstance(each.verdict, Refused):
            assert each.verdict.message, each.case.name
            assert each.verdict.next_step.endswith("."), each.case.name
            assert each.verdict.message.isprintable(), each.case.name
            assert each.verdict.file is not None or "folder" in each.case.name or "empty" in each.case.name


def test_conversions_are_bit_equal(judged: list[Judged]) -> None:
    wrong = [each.case.name for each in judged if each.expected is not None and not _equal(each)]
    assert wrong == []


def _equal(each: Judged) -> bool:
    if each.written is None or each.expected is None or each.written.keys() != each.expected.keys():
        return False
    return all(_same(each.written[name], tensor.detach()) for name, tensor in each.expected.items())


def _same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
        return False
    return _bytes(ours) == _bytes(theirs)


def _bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())


def test_nothing_takes_long(judged: list[Judged]) -> None:
    slow = {each.case.name: each.seconds for each in judged if each.seconds > SLOWEST_S}
    assert slow == {}


def test_confined_process_says_the_same(judged: list[Judged], home: Path, tmp_path: Path) -> None:
    for number, each in enumerate(judged[::IN_CHILD_EVERY]):
        scratch = tmp_path / str(number)
        scratch.mkdir()
        said = judging.judge(make.upload(home / each.case.name), scratch)
        assert (said.decision, said.code) == (each.verdict.decision, each.verdict.code), each.case.name
    assert not (home / make.MARKER).exists()
