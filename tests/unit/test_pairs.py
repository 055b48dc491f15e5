"""Answers of two versions brought together and compared."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from control_plane.domain import captured_values, pairs
from control_plane.domain.pairs import MAX_DISTANCE, RELATIVE_NOISE, Compared, Comparison, Pair
from serving_agent import answers, tensors
from serving_agent.contract.capture import Capture, CapturedTensor
from serving_agent.datatypes import NUMPY_TYPE
from serving_agent.messages import OutputTensor

FLOATS = sorted(RELATIVE_NOISE)
BROKEN = (math.nan, math.inf, -math.inf)


def tensor(values, datatype="FP32", name="y"):
    dtype = object if datatype == "BYTES" else NUMPY_TYPE[datatype]
    array = np.array(values, dtype=dtype)
    data = bytes(tensors.to_raw(array, datatype))
    return CapturedTensor(name=name, datatype=datatype, shape=array.shape, data=data)


def answer(*outputs, labels=(), **changes):
    """A capture as an agent would have made it of *outputs*, which are tensors that hold data."""
    arrays_of = [
        OutputTensor(
            each.name,
            each.datatype,
            tensors.from_raw(each.data, math.prod(each.shape), each.datatype, "").reshape(each.shape),
        )
        for each in outputs
    ]
    found = answers.summary(arrays_of, labels) if outputs else answers.Summary(False, "", (), {})
    fields = {
        "seq": 0,
        "request_id": "q",
        "fingerprint": "f",
        "rollout": "r",
        "at": 0.0,
        "outputs": outputs,
        "nonfinite": found.nonfinite,
        "decides": found.decides,
        "decisions": found.decisions,
    }
    return Capture(**(fields | changes))


def without_data(capture):
    bare = tuple(
        CapturedTensor(name=each.name, datatype=each.datatype, shape=each.shape) for each in capture.outputs
    )
    return answer(
        decides=capture.decides, decisions=capture.decisions, nonfinite=capture.nonfinite, outputs=bare
    )


@st.composite
def some_answer(draw):
    """Any answer, of few forms, so that two of them often fit."""
    kind = draw(st.sampled_from(["value", "class", "text", "token", "integer", "error", "bare", "junk"]))
    rows = draw(st.integers(1, 2))
    elements = st.floats(width=16) | st.sampled_from(BROKEN)
    match kind:
        case "value" | "bare":
            array = draw(arrays.arrays(np.float32, (rows, 2), elements=elements))
            whole = answer(tensor(array, draw(st.sampled_from(FLOATS))))
            return whole if kind == "value" else without_data(whole)
        case "class" | "token":
            shape = (rows, 3) if kind == "class" else (rows, 2, 3)
            return answer(tensor(draw(arrays.arrays(np.float32, shape, elements=elements)), name="logits"))
        case "text":
            return answer(tensor(draw(st.lists(st.binary(max_size=2), min_size=1, max_size=2)), "BYTES"))
        case "integer":
            return answer(tensor(draw(arrays.arrays(np.int64, (rows, 1))), "INT64"))
        case "error":
            return answer(error="model_failed")
    shape = tuple(draw(st.lists(st.integers(-3, 2**40), max_size=3)))
    datatype = draw(st.sampled_from(["FP32", "BYTES", "FP8", "INT8"]))
    data = draw(st.binary(max_size=9))
    return answer(outputs=(CapturedTensor(name="y", datatype=datatype, shape=shape, data=data),))


# comparing


@settings(deadline=None)
@given(some_answer(), some_answer())
def test_comparing_is_symmetric_bounded_and_never_raises(one, other):
    found = pairs.compare(one, other)
    assert found == pairs.compare(other, one)
    assert 0 <= found.distance <= MAX_DISTANCE
    assert 0 <= found.spread <= MAX_DISTANCE
    if found.measure in ("error", "form", "nonfinite"):
        assert found.distance == (0 if found.agree else MAX_DISTANCE)


@settings(deadline=None)
@given(some_answer())
def test_an_answer_agrees_with_itself_unless_it_cannot_be_read(one):
    found = pairs.compare(one, one)
    assert found.agree or found.measure == "form"
    assert found.distance == 0 or found.measure == "form"


@settings(deadline=None)
@given(
    st.sampled_from(FLOATS),
    arrays.arrays(np.float64, (2, 3), elements=st.floats(-100, 100)),
    st.floats(-0.3, 0.3),
    st.integers(0, 5),
)
def test_noise_agrees_and_more_than_noise_does_not(datatype, array, share, place):
    array = array.astype(np.float16).astype(np.float64)
    row = array[place // 3]
    scale = np.abs(row).max()
    assume(scale > 0.01)
    changed = array.copy()
    changed[place // 3, place % 3] += share * scale
    one, other = (answer(tensor(each, "FP64")) for each in (array, changed))
    found = pairs.compare(one, other)
    relative = np.abs(array - changed).max() / max(scale, np.abs(changed[place // 3]).max())
    assert found.measure == "value"
    assert found.distance == pytest.approx(relative, abs=1e-12)
    noise = RELATIVE_NOISE["FP64"]
    if not math.isclose(relative, noise, rel_tol=1e-6):
        assert found.agree == (relative <= noise)


@pytest.mark.parametrize("datatype", FLOATS)
def test_one_step_of_a_type_is_noise(datatype):
    steps = {"FP16": 2.0**-10, "BF16": 2.0**-7, "FP32": 2.0**-23, "FP64": 2.0**-52}
    one, other = answer(tensor([[1.0]], datatype)), answer(tensor([[1.0 + steps[datatype]]], datatype))
    assert one != other
    assert pairs.compare(one, other).agree


@pytest.mark.parametrize(
    ("one", "other", "agree", "measure", "distance"),
    [
        (answer(tensor([[1.0, 1e-7]])), answer(tensor([[1.0, 3e-7]])), True, "value", None),
        (answer(tensor([[1e-8]])), answer(tensor([[-1e-8]])), True, "value", 2.0),
        (answer(tensor([[1.0]])), answer(tensor([[-1.0]])), False, "value", 2.0),
        (answer(tensor([[3e38]])), answer(tensor([[-3e38]])), False, "value", 2.0),
        (answer(tensor([[1.0]])), answer(tensor([[math.nan]])), False, "nonfinite", 2.0),
        (answer(tensor([[math.nan, 1]])), answer(tensor([[1, math.nan]])), False, "nonfinite", 2.0),
        (answer(tensor([[math.inf]])), answer(tensor([[-math.inf]])), False, "nonfinite", 2.0),
        (answer(tensor([[math.nan, 1]])), answer(tensor([[math.nan, 1]])), True, "value", 0.0),
        (answer(tensor([[1.0]])), answer(tensor([1.0])), False, "form", 2.0),
        (answer(tensor([[1.0]])), answer(tensor([[1.0], [1.0]])), False, "form", 2.0),
        (answer(tensor([[1.0]])), answer(tensor([[1.0]], name="z")), False, "form", 2.0),
        (answer(tensor([[1.0]])), answer(tensor([[1.0]], "FP64")), False, "form", 2.0),
        (answer(tensor([[2**60]], "INT64")), answer(tensor([[2**60 + 1]], "INT64")), False, "value", None),
        (answer(tensor([b"a", b"b"], "BYTES")), answer(tensor([b"a", b"c"], "BYTES")), False, "text", 0.5),
        (answer(tensor([b"a"], "BYTES")), answer(tensor([b"a"], "BYTES")), True, "text", 0.0),
        (answer(error="model_failed"), answer(tensor([[1.0]])), False, "error", 2.0),
        (answer(error="model_failed"), answer(error="model_memory"), True, "error", 0.0),
    ],
)
def test_what_agrees(one, other, agree, measure, distance):
    found = pairs.compare(one, other)
    assert (found.agree, found.measure) == (agree, measure)
    if distance is not None:
        assert found.distance == pytest.approx(distance)


def logits(*rows):
    return answer(tensor(rows, name="logits"))


def test_classes_agree_however_far_their_scores_are_apart():
    found = pairs.compare(logits([0.1, 0.2, 0.9]), logits([0.1, 0.2, 0.3]))
    assert (found.agree, found.measure, found.distance) == (True, "class", 0.0)
    assert found.spread == pytest.approx(2 / 3)


def test_the_share_of_rows_with_another_class_is_the_distance():
    found = pairs.compare(logits([1, 0], [1, 0], [1, 0], [1, 0]), logits([1, 0], [0, 1], [1, 0], [1, 0]))
    assert (found.agree, found.measure, found.distance) == (False, "class", 0.25)


def test_classes_go_by_name_when_one_version_knows_more_of_them():
    one = answer(tensor([[0.9, 0.1]], name="probabilities"), labels=("cat", "dog"))
    other = answer(tensor([[0.1, 0.8, 0.1]], name="probabilities"), labels=("ant", "cat", "dog"))
    assert pairs.compare(one, other).agree


def test_classes_are_compared_though_the_outputs_were_too_large_to_keep():
    one, other = (without_data(logits(row)) for row in ([1.0, 0.0], [0.0, 1.0]))
    assert pairs.compare(one, one).agree
    assert pairs.compare(one, other).measure == "class"
    assert not pairs.compare(one, other).agree


def test_the_last_positions_token_is_compared():
    one, other = np.zeros((1, 2, 4)), np.zeros((1, 2, 4))
    one[0, 0, 3] = one[0, 1, 1] = other[0, 0, 2] = other[0, 1, 1] = 1
    found = pairs.compare(*(answer(tensor(each, name="logits")) for each in (one, other)))
    assert (found.agree, found.measure) == (True, "token")


def test_one_output_that_disagrees_speaks_for_all():
    one = answer(tensor([[1.0]]), tensor([b"a"], "BYTES", "z"))
    assert pairs.compare(one, answer(tensor([[1.0]]), tensor([b"b"], "BYTES", "z"))).measure == "text"
    assert pairs.compare(one, answer(tensor([[2.0]]), tensor([b"a"], "BYTES", "z"))).measure == "value"


def test_what_nobody_can_compare_counts_neither_way():
    bare = without_data(answer(tensor([[1.0]])))
    assert not pairs.compare(bare, bare).is_known
    known = answer(tensor([[1.0]]))
    assert [each.pair.stable for each in pairs.compared([Pair(bare, bare), Pair(known, known)])] == [known]


# joining


@dataclass
class Traffic:
    stable: list
    candidate: list


@st.composite
def traffic(draw):
    """Captures of two agents; ids and fingerprints come again, times are in any order."""
    sides = []
    for _ in range(2):
        keys = draw(
            st.lists(
                st.tuples(
                    st.sampled_from("ab"), st.sampled_from("123"), st.sampled_from("xy"), st.floats(0, 9)
                ),
                max_size=12,
            )
        )
        sides.append([
            answer(seq=seq, rollout=rollout, request_id=id_, fingerprint=print_, at=at)
            for seq, (rollout, id_, print_, at) in enumerate(keys)
        ])  # fmt: skip
    return Traffic(*sides)


def key(capture):
    return capture.rollout, capture.request_id, capture.fingerprint


@settings(deadline=None)
@given(traffic())
def test_every_capture_is_in_one_pair_or_left_over(case):
    joined = pairs.join(case.stable, case.candidate)
    assert all(key(pair.stable) == key(pair.candidate) for pair in joined.pairs)
    for side, given_ in (("stable", case.stable), ("candidate", case.candidate)):
        seen = [getattr(pair, side).seq for pair in joined.pairs] + [one.seq for one in getattr(joined, side)]
        assert sorted(seen) == [capture.seq for capture in given_]
    assert not {key(one) for one in joined.stable} & {key(one) for one in joined.candidate}


@settings(deadline=None)
@given(traffic(), st.integers(0, 12))
def test_captures_that_come_in_two_parts_find_each_other(case, split):
    at_once = pairs.join(case.stable, case.candidate)
    first = pairs.join(case.stable[:split], case.candidate)
    second = pairs.join([*first.stable, *case.stable[split:]], first.candidate)
    assert len(first.pairs) + len(second.pairs) == len(at_once.pairs)


@settings(deadline=None)
@given(traffic(), st.integers(0, 3))
def test_what_is_left_over_is_bounded_to_the_newest(case, most):
    everything, joined = (
        pairs.join(case.stable, case.candidate),
        pairs.join(case.stable, case.candidate, most),
    )
    assert joined.pairs == everything.pairs
    for side in ("stable", "candidate"):
        kept, all_of_it = getattr(joined, side), getattr(everything, side)
        assert kept == all_of_it[len(all_of_it) - len(kept) :]
        assert len(kept) == min(most, len(all_of_it))


# the worst


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 2), st.floats(0, 2)), max_size=20), st.integers(0, 8))
def test_the_worst_are_disagreements_and_none_left_out_is_farther(cases, keep):
    pair = Pair(answer(), answer())
    every = [Compared(pair, Comparison(agree, far, "value", spread)) for agree, far, spread in cases]
    chosen = pairs.worst(every, keep)
    disagreeing = [each for each in every if not each.comparison.agree]
    assert len(chosen) == min(keep, len(disagreeing))
    far = [(each.comparison.distance, each.comparison.spread) for each in disagreeing]
    picked = [(each.comparison.distance, each.comparison.spread) for each in chosen]
    assert picked == sorted(far, reverse=True)[:keep]


# for people


def test_answers_and_inputs_as_json():
    one = answer(tensor([[1.0, math.nan], [math.inf, -math.inf]]), tensor([b"\xffa"], "BYTES", "t"))
    shown = captured_values.answer_of(one)
    assert shown["outputs"]["y"] == {
        "datatype": "FP32",
        "shape": [2, 2],
        "data": [[1.0, "NaN"], ["Infinity", "-Infinity"]],
    }
    assert shown["outputs"]["t"]["data"] == ["\ufffda"]
    assert (shown["nonfinite"], shown["error"], shown["decisions"]) == (True, "", [])


def test_inputs_are_told_whole_or_not_at_all():
    whole, bare = tensor([[1.5]], name="x"), CapturedTensor(name="m", datatype="FP32", shape=(1,))
    assert captured_values.inputs_of(answer(inputs=(whole,))) == {"x": [[1.5]]}
    assert captured_values.inputs_of(answer(inputs=(whole, bare))) is None
    assert captured_values.inputs_of(answer()) is None


def test_large_outputs_are_told_by_their_shape():
    shown = captured_values.answer_of(answer(tensor(np.zeros((1, 5000)))))
    assert shown["outputs"]["y"] == {"datatype": "FP32", "shape": [1, 5000], "data": None}


@settings(deadline=None)
@given(some_answer())
def test_anything_can_be_told(one):
    captured_values.answer_of(one)
