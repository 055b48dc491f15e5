"""What the debugger's pages say: tensors, layers, runs, inputs."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.debugging import (
    CaptureView,
    InputChoices,
    InputView,
    SideView,
)
from control_plane.domain.views import Reason
from control_plane.errors import InvalidInputError
from control_plane.ui.viewmodels import debugger as words
from control_plane.ui.viewmodels import debugger_input as inputs
from control_plane.ui.viewmodels import debugger_points as points
from control_plane.ui.viewmodels import debugger_tensors as tensors
from serving_agent.contract.inspection import (
    Edit,
    Failure,
    Histogram,
    Stage,
)
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes.debugger_views import compared, detail, pair, point, run, tensor, view

# --- tensors ---


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (0.0123456, "0.01235"), (-2.0, "−2"), (math.nan, "NaN"), (-math.inf, "−∞"), (0.0, "0")],
)
def test_numbers(value: float | None, said: str) -> None:
    assert tensors.number(value) == said


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=130))
def test_bars_show_everything_that_is_there(counts: list[int]) -> None:
    digits = tensors.bars(Histogram(low=0.0, high=1.0, counts=tuple(counts)))
    if not any(counts):
        assert digits == ""
        return
    assert len(digits) <= tensors.BARS
    assert "9" in digits
    width = math.ceil(len(counts) / tensors.BARS)
    there = [any(counts[at : at + width]) for at in range(0, len(counts), width)]
    assert [digit != "0" for digit in digits] == there


def test_a_tensor_in_words() -> None:
    said = tensors.row(tensor(nan=1, inf=0))
    assert (said.shape, said.zeros, said.nan, said.wrong) == ("1 × 8", "25 %", "1", True)
    assert said.bars_label == "histogram from −1.5 to 2, most near 1.973"
    assert dict(tensors.facts(tensor()))["NaN"] == "0 of 8"
    text = tensor(datatype="BYTES", low=None, high=None, mean=None, std=None, histogram=None)
    assert [label for label, _ in tensors.facts(text)] == ["shape", "type"]
    assert tensors.zeros(text) == "–"
    assert tensors.not_kept(tensor()) == ""
    assert "8 elements were not kept" in tensors.not_kept(tensor(offset=None))
    assert tensors.shape(()) == "scalar"
    assert tensors.stopped("digits@1 stopped") == "digits@1 stopped."
    assert tensors.stopped("shapes differ") == "Shapes differ."


# --- layers ---


def test_rows_mark_what_stands_out() -> None:
    layers = (
        point("layer0", depth=1),
        point("layer1", outputs=(tensor(nan=2, inf=1), tensor()), edited=True),
        point("layer2", outputs=(), not_captured="fused away"),
    )
    first = points.table(detail(run(*layers)), detail(run(*layers)).a, run(*layers))
    assert "sqnr" not in {column["key"] for column in first["columns"]}
    both = detail(run(*layers), run(*layers), compared(pair(0, equal=True), pair(1), at=1))
    shown = points.table(both, both.a, run(*layers))
    assert {"max_abs", "cosine", "sqnr"} <= {column["key"] for column in shown["columns"]}
    one, two, three = shown["rows"]
    assert (one["sqnr"], one["max_abs"], one["marks"]) == ("equal", "0", [])
    assert [mark["word"] for mark in two["marks"]] == ["edited", "NaN and Inf", "diverges"]
    assert (two["wrong"], two["output"], two["sqnr"]) == (["nan", "inf"], "1 × 8 +1", "40.0 dB")
    assert (three["why"], three["low"], three["marks"][0]["word"]) == ("Fused away.", "", "not captured")
    assert json.dumps(shown)


def test_where_two_part_is_found_on_either_side() -> None:
    found = compared(pair(0), pair(1, problem="shapes differ: A has 1", shapes_differ=True), at=1)
    assert (points.diverged_at(found, "a"), points.diverged_at(found, "b")) == (1, 2)
    assert points.diverged_at(compared(pair(0), at=0, rule=None), "a") == 0
    assert points.diverged_at(None, "a") is None
    assert points.pairs_of(found, "b")[2].a == "layer1"
    facts = dict(points.pair_facts(pair(0), "b"))
    assert facts["compared with"] == "layer0, matched by module path"
    assert dict(points.pair_facts(found.pairs[1], "a"))["difference"] == "Shapes differ: A has 1."
    assert points.alone_words(found) == (
        "Without a counterpart: 1 layer of A, 0 of B",
        "Only in A: alone.",
    )


def test_the_address_names_side_and_layer() -> None:
    both = detail(run(point("layer0")), run(point("other0"), point("other1")), compared(pair(0)))
    assert points.side_of(both, "b").ref == "digits@2"
    assert points.side_of(detail(run()), "b").ref == "digits@1"
    assert points.place_of(both.sides[1].run or run(), "other1") == 1
    assert points.place_of(both.sides[1].run or run(), "gone") == 0
    drawn = points.histograms(both, "a", 0, 0, tensor())
    assert [title for title, _ in drawn] == ["A · digits@1", "B · digits@2"]


# --- runs in words ---


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "is deleted soon"),
        (60, "kept 1 hour more"),
        (86_400, "kept 24 hours more"),
        (30 * 86_400, "kept 30 days more"),
    ],
)
def test_how_long_a_run_is_kept(seconds: float, said: str) -> None:
    assert words.kept(view(expires_at=5000.0 + seconds), 5000.0) == said


def test_stages_and_what_stopped() -> None:
    failure = Failure(type="ValueError", message="wrong shape", place="model.py:3 in forward", module="fc1")
    stages = (
        Stage(name="inputs", state="done", tensors=(tensor(),)),
        Stage(name="preprocess", state="failed", seconds=0.002, failure=failure),
        Stage(name="predict", state="not_reached"),
    )
    seen = run(stages=stages)
    assert [step.state for step in words.steps(seen)] == ["done", "failed", "next", "next"]
    stopped = words.failed_stage(seen)
    assert stopped is not None
    assert words.failure_head(stopped, failure) == "Stopped in preprocess: ValueError: wrong shape"
    assert words.failure_place(stopped, failure).startswith("At model.py:3 in forward, in module fc1, 2 ms")
    assert [badge.word for badge in words.found_badges(detail(seen))] == ["Stopped in preprocess"]
    assert "before the request stopped" in words.nothing_inside(seen)
    side = SideView(side="a", ref="digits@1", run=None, problem=Reason("x", "it was killed", "Try again."))
    assert words.problem_of(side) == ("digits@1: it was killed", "Try again.")


def test_cost_says_whether_recording_changed_anything() -> None:
    assert "(2.0×); both gave the same outputs bit for bit" in words.cost(
        run(plain_s=0.01, recorded_s=0.02, same_outputs=True)
    )
    assert "not deterministic" in words.cost(run(same_outputs=False))


def test_what_an_edit_changed() -> None:
    edit = Edit(point="act", tensor=1, index=(0, None), value=-2.0)
    assert words.edit_words(edit) == "act output 1 [0, :] = −2"
    before, after = {"logits": [1.0, 2.0, math.nan]}, {"logits": [1.0, 5.0, math.nan], "label": ["x"]}
    rows = words.answer_rows(before, after)
    assert [row["Output"] for row in rows] == ["label", "logits[1]", "logits[0]", "logits[2]"]
    assert [row["Change"] for row in rows] == ["new", "+3", "none", "none"]
    assert not words.unchanged(before, after)
    assert words.unchanged(before, {"logits": [1.0, 2.0, math.nan]})


# --- inputs ---


SIGNATURE = Signature(
    (TensorSpec("image", "FP32", (-1, 1, 8, 8)), TensorSpec("text", "BYTES", (-1,))),
    (TensorSpec("logits", "FP32", (-1, 10)),),
)


def choices(**changes: Any) -> InputChoices:
    given: dict[str, Any] = {
        "ref": "digits@1", "signature": SIGNATURE, "examples": ("Example 1",), "endpoints": (),
        "image_inputs": ("image",), "text_inputs": ("text",),
    }  # fmt: skip
    return InputChoices(**{**given, **changes})


def test_ways_to_give_an_input() -> None:
    assert inputs.ways(choices())[:2] == ("Example", "Text")
    assert inputs.ways(choices(examples=(), text_inputs=()))[0] == "JSON"
    assert inputs.way_of(example=None, endpoint="e", json=None) == "Captured"
    assert inputs.beside(["b@1", "a@1", "a@2"], "a@1") == ["a@1", "a@2", "b@1"]
    assert [inputs.whole(text, 1, 8) for text in ("4", "99", "x", None)] == [4, 8, 1, 1]
    assert "PNG or JPEG" in inputs.file_words(choices())


def test_files_are_given_by_the_names_of_inputs() -> None:
    assert inputs.npy_files(choices(), [("image.npy", b"1"), ("text.npy", b"2")]) == {
        "image": b"1",
        "text": b"2",
    }
    with pytest.raises(InvalidInputError, match="text has no file of its name"):
        inputs.npy_files(choices(), [("image.npy", b"1")])
    single = choices(signature=Signature(SIGNATURE.inputs[:1], SIGNATURE.outputs))
    assert inputs.npy_files(single, [("any.npy", b"1")]) == {"": b"1"}


def test_json_inputs_and_links() -> None:
    assert inputs.bare_input({"input": [[1]]}) == [[1]]
    assert inputs.bare_input({"input": [[1]], "image": [2]}) == {"input": [[1]], "image": [2]}
    assert inputs.link_of({"input": [[1.5]]}) == {"json": "[[1.5]]"}
    assert inputs.link_of({"input": [0.123456] * 1000}) is None
    assert inputs.link_of({"inputs": []}) is None


def test_a_kept_request_in_words() -> None:
    kept = CaptureView(
        endpoint="digits", agent="a1", seq=3, at=0.0, request_id="r-1", complete=True, error="model_failed",
        inputs=(InputView(name="image", datatype="FP32", shape=(1, 8)),), why="sampling",
    )  # fmt: skip
    said = inputs.capture_words(kept, None)
    assert said == "1970-01-01 00:00:00 UTC · image FP32 1 × 8 · model_failed · sampled · r-1"
