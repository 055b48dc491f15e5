"""Two sides' answers to the same rows, compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.optimization import answers, holdout
from control_plane.optimization.answers import Given
from control_plane.optimization.messages import HoldoutRow
from serving_agent.contract.signature import Signature, TensorSpec

LOGITS = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("logits", "FP32", (-1, 3)),))
NAMES = ("cat", "dog", "owl")


def given_logits(rows: list[list[float]]) -> Given:
    made = Given.empty(len(rows))
    values = np.array(rows, dtype=np.float32)
    made.add(range(len(rows)), {"logits": values}, {"logits": values}, LOGITS, NAMES)
    return made


def test_classes_are_compared_and_right_ones_counted() -> None:
    parent = given_logits([[9, 0, 0], [0, 9, 0], [0, 0, 9]])
    variant = given_logits([[8, 0, 0], [9, 8, 0], [0, 0, 9]])
    found = answers.compare(parent, variant, ["cat", "dog", None])
    assert (found.rows, found.agreed, found.labelled) == (3, 2, 2)
    assert (found.parent_right, found.variant_right) == (2, 1)
    assert found.max_error == pytest.approx(9.0)
    assert found.kl is not None
    assert found.kl == pytest.approx(0.437, rel=0.01)  # one row of three, by hand
    assert found.metric_drop == pytest.approx(0.5)


def test_equal_answers_agree_in_everything() -> None:
    parent = given_logits([[1, 2, 3], [3, 2, 1]])
    found = answers.compare(parent, parent, [None, None])
    assert (found.agreed, found.max_error, found.kl, found.broken) == (2, 0.0, 0.0, 0)
    assert found.min_cosine == pytest.approx(1.0)
    assert found.metric_drop is None


def test_a_variant_that_answers_nan_is_broken_and_one_whose_parent_does_says_nothing() -> None:
    parent = given_logits([[1, 2, 3], [float("nan"), 0, 0]])
    variant = given_logits([[float("nan"), 2, 3], [1, 0, 0]])
    found = answers.compare(parent, variant, [None, None])
    assert (found.rows, found.agreed, found.broken) == (1, 0, 1)


def test_embeddings_decide_their_nearest_row() -> None:
    def side(vectors: list[list[float]]) -> Given:
        made = Given.empty(len(vectors))
        for index, vector in enumerate(vectors):
            made.raw[index] = {"embedding": np.array(vector, dtype=np.float32)}
        return made

    parent = side([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    same = side([[0.98, 0.02], [0.9, 0.12], [0, 1], [0.1, 0.88]])
    other = side([[1, 0], [0.1, 0.9], [0, 1], [0.9, 0.1]])
    assert answers.compare(parent, same, [None] * 4).agreed == 4
    assert answers.compare(parent, other, [None] * 4).agreed == 0


@pytest.mark.parametrize(("moved", "agreed"), [(0.019, 1), (0.021, 0)], ids=["within", "beyond"])
def test_values_without_a_decision_agree_within_two_percent(moved: float, agreed: int) -> None:
    parent, variant = Given.empty(1), Given.empty(1)
    parent.raw[0] = {"y": np.array([1.0, -0.5])}
    variant.raw[0] = {"y": np.array([1.0 + moved, -0.5])}
    assert answers.compare(parent, variant, [None]).agreed == agreed


def test_another_shape_or_a_missing_output_is_no_agreement() -> None:
    parent, variant = Given.empty(2), Given.empty(2)
    parent.raw = [{"y": np.zeros(2)}, {"y": np.zeros(2)}]
    variant.raw = [{"y": np.zeros(3)}, {"z": np.zeros(2)}]
    assert answers.compare(parent, variant, [None, None]).agreed == 0


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    made = given_logits([[1, 2, 3], [3, 2, 1]])
    answers.write(made, tmp_path / "a.npz")
    again = answers.read(tmp_path / "a.npz")
    assert again.decisions == made.decisions == ["owl", "cat"]
    assert all((a["logits"] == b["logits"]).all() for a, b in zip(again.raw, made.raw, strict=True))


FINITE = st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3)


@given(FINITE, FINITE)
def test_kl_is_never_negative_and_zero_for_equal_ones(ours: list[float], theirs: list[float]) -> None:
    assert answers.kl_divergence(np.array(ours), np.array(theirs)) >= 0
    assert answers.kl_divergence(np.array(ours), np.array(ours) + 5) == pytest.approx(0, abs=1e-9)


# --- rows in batches ---

SIGNATURE = Signature((TensorSpec("x", "INT64", (-1, -1)),), (TensorSpec("y", "FP32", (-1, 3)),))


def rows(*lengths: int) -> tuple[HoldoutRow, ...]:
    return tuple(HoldoutRow(inputs={"x": list(range(length))}) for length in lengths)


def test_rows_of_one_shape_go_together() -> None:
    assert holdout.groups(rows(3, 5, 3, 5, 3), SIGNATURE) == [[0, 2, 4], [1, 3]]


def test_a_batch_repeats_the_commonest_shape() -> None:
    batch = holdout.batch(rows(3, 5, 3), SIGNATURE, 5)
    assert [len(row.inputs["x"]) for row in batch] == [3] * 5


@given(st.lists(st.integers(1, 4), min_size=1, max_size=40), st.integers(1, 9))
def test_every_row_is_answered_once(lengths: list[int], size: int) -> None:
    groups = holdout.groups(rows(*lengths), SIGNATURE)
    seen = [index for group in groups for chunk in holdout.chunks(group, size) for index in chunk]
    assert sorted(seen) == list(range(len(lengths)))


def test_made_up_rows_are_the_same_every_time() -> None:
    sample: dict[str, Any] = {"x": np.zeros((1, 4), np.float32), "t": np.array([b"a word"], dtype=object)}
    first, second = holdout.made_up(sample), holdout.made_up(sample)
    assert first == second
    assert len({tuple(row.inputs["x"]) for row in first}) == holdout.MADE_UP_ROWS
    assert first[0].inputs["t"] == "a word"
