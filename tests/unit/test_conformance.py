"""The pure parts of the comparison with Triton: when answers are the same, and what is said of others."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format  # type: ignore[import-untyped]  # no stubs
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from benchmarks.conformance import checks, differences, models, perf_analyzer, recorded, report, triton
from benchmarks.conformance.differences import Difference
from benchmarks.conformance.matrix import Observations
from benchmarks.serving import processes
from serving_agent.contract.signature import DATATYPES

NUMBERS = st.floats(allow_nan=False) | st.integers() | st.booleans() | st.text() | st.none()
JSON = st.recursive(
    NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(JSON)
def test_an_observation_is_the_same_as_itself_after_a_trip_through_a_file(seen: object) -> None:
    again = json.loads(json.dumps(seen))
    assert checks.same(seen, again)
    assert checks.same(recorded.without_sentences(seen), recorded.without_sentences(again))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, True), (1, 1.0), (0.0, -0.0), (0.1, float(np.float32(0.1))), ([1], [1, 2]), ([1, 2], [2, 1]),
        ({"a": 1}, {}), ({"refused": "400"}, {"refused": "404"}), ("nan", "inf"), (None, False), ([], {}),
    ],
)  # fmt: skip
def test_what_differs_is_not_the_same(left: object, right: object) -> None:
    assert not checks.same(left, right)
    assert not checks.same(right, left)


def test_sentences_are_not_compared() -> None:
    assert checks.same({"refused": "400", "sentence": "a"}, {"refused": "400", "sentence": "b"})
    assert checks.same({"refused": "400", "sentence": "a"}, {"refused": "400"})
    assert recorded.without_sentences([{"sentence": "a", "b": {"sentence": "c"}}]) == [{"b": {}}]


def test_tensors_are_observed_exactly() -> None:
    assert checks.tensor(np.array([[1.5, np.nan, -np.inf]], dtype=np.float32)) == {
        "type": "float32", "shape": [1, 3], "data": [1.5, "nan", "-inf"],
    }  # fmt: skip
    text = np.array([b"\xff", "é"], dtype=object)
    assert checks.tensor(text) == {"type": "BYTES", "shape": [2], "data": ["ÿ", "Ã©"]}


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_sends_values_that_tell_rows_and_columns_apart(datatype: str) -> None:
    sent = models.values(datatype)
    assert sent.shape == (2, 3)
    assert models.rotated(sent)[0, 0] == sent[0, 1]
    assert not checks.same(checks.tensor(sent), checks.tensor(models.rotated(sent)))


def test_the_classifier_is_exact_and_has_learnt() -> None:
    """No order of additions may change an answer: the scaled sums are whole numbers that FP32 holds."""
    scaled = models.weights().astype(np.float64) * 1024
    assert np.array_equal(scaled, np.round(scaled))
    assert np.abs(scaled).sum(axis=0).max() * 16 < 2**24
    exact = models.images().reshape(4, 64).astype(np.float64) @ models.weights()[:64].astype(np.float64)
    assert np.array_equal(models.logits(), (exact + models.weights()[64]).astype(np.float32))
    assert len({tuple(row) for row in models.logits()}) == 4


@pytest.mark.parametrize("max_batch_size", [0, 8])
def test_tritons_configuration_declares_the_signature(max_batch_size: int) -> None:
    signature = models.SIGNATURES[models.TYPES]
    served = triton.Served("types", signature, Path("model.py"), Path("model.pt"), max_batch_size)
    parsed = text_format.Parse(triton.config(served), model_config_pb2.ModelConfig())
    assert parsed.max_batch_size == max_batch_size
    assert [tensor.name for tensor in parsed.input] == [spec.name for spec in signature.inputs]
    assert list(parsed.output[0].dims) == ([3] if max_batch_size else [-1, 3])
    assert parsed.input[len(DATATYPES) - 1].data_type == model_config_pb2.TYPE_STRING


def test_perf_analyzer_is_given_floats_without_open_sizes() -> None:
    given_data = json.loads(json.dumps(perf_analyzer.input_data(models.logits())))
    assert len(given_data["data"]) == len(given_data["validation_data"]) == 4
    image = given_data["data"][0]["image"]
    assert image["shape"] == [1, 1, 8, 8]
    assert all(isinstance(value, float) for value in image["content"])


SAME, OTHER = {"refused": "404"}, {"refused": "400"}


def test_an_answer_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    intended = Difference(("http/x/*",), OTHER, "because", ("agent",))
    monkeypatch.setattr(differences, "INTENDED", (intended,))
    judge = differences.judge
    assert judge("http/x/1", "agent", SAME, SAME, None).word == "same"
    assert judge("http/x/1", "agent", OTHER, SAME, None) == differences.Verdict("intended", "because")
    assert judge("http/x/1", "gateway", OTHER, SAME, None).is_fault
    assert judge("http/y", "agent", OTHER, SAME, None).is_fault
    assert judge("http/y", "agent", SAME, SAME, expected=True).is_fault
    assert differences.judge_oracle(SAME, expected=True).is_fault
    assert not differences.judge_oracle(SAME, expected=None).is_fault


def make_run(agent: checks.Json) -> report.Run:
    seen: dict[str, Observations] = {
        "triton": {"http/y": {"sync": SAME, "aio": SAME}},
        "agent": {"http/y": {"sync": SAME, "aio": agent}},
    }
    return report.Run({"torch": "2"}, {"http/y": None}, seen)


def test_one_wrong_flavour_is_a_fault_and_is_shown(tmp_path: Path) -> None:
    run = make_run(OTHER)
    assert run.faults() == [("agent", "http/y")]
    table = report.table(run)
    assert "WRONG at agent, http/y" in table
    assert table.endswith("1 checks, 4 answers, 1 faults")
    kept = json.loads(report.write(run, date(2030, 1, 2), tmp_path).read_text())
    assert kept["faults"] == ["agent: http/y"]
    assert kept["answers"]["http/y"] == {"triton": {"*": SAME}, "agent": {"sync": SAME, "aio": OTHER}}
    assert make_run(SAME).faults() == []


def test_recorded_answers_come_back_and_must_not_depend_on_the_flavour(tmp_path: Path) -> None:
    path = tmp_path / "triton.json"
    spoken = {"refused": "404", "sentence": "request 17 failed"}
    recorded.write({"http/y": {"sync": spoken, "aio": SAME}}, {"torch": "2"}, path)
    assert recorded.read(path) == {"http/y": SAME}
    with pytest.raises(recorded.FlavourError, match="http/y"):
        recorded.write({"http/y": {"sync": OTHER, "aio": SAME}}, {}, path)


def starting(monkeypatch: pytest.MonkeyPatch, failures: list[str]) -> list[str]:
    """Let Triton fail with each of *failures* before it starts; returns those that have not happened."""
    left = list(failures)

    @contextlib.contextmanager
    def started(*arguments: object) -> Iterator[triton.Addresses]:
        if left:
            raise processes.StartError(left.pop(0))
        yield triton.Addresses("127.0.0.1:1", "127.0.0.1:2")

    monkeypatch.setattr(triton, "_started", started)
    return left


def test_tritons_race_at_the_start_is_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    left = starting(monkeypatch, [f"exited with -6: {triton.START_RACE}"] * (triton.ATTEMPTS - 1))
    with triton.running(tmp_path, ["types"], tmp_path) as found:
        assert found.rest == "127.0.0.1:1"
    assert left == []


@pytest.mark.parametrize("failures", [["no such model"], [triton.START_RACE] * triton.ATTEMPTS])
def test_a_triton_that_does_not_start_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failures: list[str]
) -> None:
    left = starting(monkeypatch, failures)
    with pytest.raises(processes.StartError, match=failures[-1]), triton.running(tmp_path, [], tmp_path):
        pass
    assert left == []
