"""Which models' requests may share a batch, found by a trial with two rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_agent.contract.options import Batching
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.messages import OutputTensor
from serving_agent.row_independence import agree, another, can_share_batches
from tests.fakes.handlers import ROWS, Computing, rows_of

SHARED = Batching(max_rows=8)


def mixing(inputs):
    return {"y": inputs["x"] - inputs["x"].mean(axis=0)}


def softmax_over_the_batch(inputs):
    exponentials = np.exp(inputs["x"])
    return {"y": exponentials / exponentials.sum(axis=0)}


def drawing(inputs):
    return {"y": inputs["x"] + np.random.default_rng().random(inputs["x"].shape).astype(np.float32)}


def one_row_only(inputs):
    if len(inputs["x"]) > 1:
        raise ValueError("one at a time")
    return {"y": inputs["x"]}


def in_place(inputs):
    inputs["x"] *= 2
    return {"y": inputs["x"].copy()}


@pytest.mark.parametrize(
    "compute", [lambda inputs: {"y": inputs["x"] * 2}, in_place, lambda i: {"y": np.log(i["x"])}]
)
def test_models_that_answer_row_by_row_share(compute):
    with np.errstate(all="ignore"):
        row = rows_of(-1.5)
        assert can_share_batches(Computing(compute), row, SHARED)
        assert np.array_equal(row["x"], rows_of(-1.5)["x"]), "the row is left as it was"


@pytest.mark.parametrize(
    ("compute", "reason"),
    [
        (mixing, "otherwise when another one is beside it"),
        (softmax_over_the_batch, "otherwise when another one is beside it"),
        (drawing, "otherwise when another one is beside it"),
        (one_row_only, "the trial with two rows failed (ValueError)"),
        (lambda inputs: {"y": inputs["x"][:1]}, "one row for each input row"),
    ],
)
def test_others_do_not_and_the_log_says_why(compute, reason, caplog):
    assert not can_share_batches(Computing(compute), rows_of(1.5), SHARED)
    assert reason in caplog.text


def test_nothing_is_shared_where_handler_signature_options_or_the_want_of_a_row_forbid_it():
    server = Computing(lambda inputs: {"y": inputs["x"]})
    assert not can_share_batches(server, None, SHARED)
    assert not can_share_batches(server, rows_of(1.5), Batching(max_rows=1))
    server.row_wise = False
    assert not can_share_batches(server, rows_of(1.5), SHARED)
    fixed = Computing(server.compute, Signature((TensorSpec("x", "FP32", (1, 2)),), ROWS.outputs))
    assert not can_share_batches(fixed, rows_of(1.5), SHARED)
    assert (server.runs, fixed.runs) == ([], [])


def test_want_of_memory_for_two_rows_is_not_hidden():
    def greedy(inputs):
        if len(inputs["x"]) > 1:
            raise MemoryError
        return {"y": inputs["x"]}

    with pytest.raises(MemoryError):
        can_share_batches(Computing(greedy), rows_of(1.5), SHARED)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_the_other_row_differs_and_keeps_to_known_values_where_it_can(values):
    row = {"x": np.array([values])}
    other = another(row)["x"]
    assert other.shape == row["x"].shape
    assert sorted(other.ravel()) == sorted(values)
    assert np.array_equal(other, row["x"]) == (values == values[::-1])


def test_floats_of_one_value_are_halved_and_texts_doubled():
    assert another({"x": np.array([[3.0, 3.0]], np.float32)})["x"].tolist() == [[1.5, 1.5]]
    text = another({"text": np.array([b"signal"], dtype=object)})["text"]
    assert text.tolist() == [b"signalsignal"]


@given(st.floats(-1e6, 1e6, width=32), st.floats(-0.5, 0.5))
def test_answers_agree_within_the_tolerance_of_their_largest_value(value, off):
    one = (OutputTensor("y", "FP32", np.array([[value, 1.0]])),)
    other = (OutputTensor("y", "FP32", np.array([[value, 1.0 + off]])),)
    assert agree(one, other, 0.01) == (abs(1.0 + off - 1.0) <= 0.01 * max(abs(value), 1.0) + 1e-9)


def test_labels_must_be_the_same_and_nan_is_nan():
    def answer(values, datatype):
        return (OutputTensor("y", datatype, np.array(values, dtype=object if datatype == "BYTES" else None)),)

    assert agree(answer([b"a"], "BYTES"), answer([b"a"], "BYTES"), 0.1)
    assert not agree(answer([b"a"], "BYTES"), answer([b"b"], "BYTES"), 0.1)
    assert agree(answer([np.nan, -np.inf], "FP32"), answer([np.nan, -np.inf], "FP32"), 0.1)
    assert not agree(answer([np.nan], "FP32"), answer([1.0], "FP32"), 0.1)
