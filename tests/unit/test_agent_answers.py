"""What an answer comes down to: finite or not, classes, bins."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving_agent import answers, tensors
from serving_agent.answers import MAX_BINS, MAX_CLASSES, MAX_DECISIONS, MAX_EXPONENT, NAN, OTHER
from serving_agent.datatypes import FLOATS, NUMPY_TYPE
from serving_agent.messages import OutputTensor

BROKEN = (math.nan, math.inf, -math.inf)
NUMERIC = sorted(NUMPY_TYPE.keys() - {"BYTES"})
EVERY_BIN = {
    "0",
    NAN,
    *(f"{sign}2^{power}" for sign in "+-" for power in range(-MAX_EXPONENT, MAX_EXPONENT + 1)),
}


def output(values, datatype="FP32", name="y"):
    dtype = object if datatype == "BYTES" else NUMPY_TYPE[datatype]
    return OutputTensor(name, datatype, np.array(values, dtype=dtype))


def summed(*outputs, labels=()):
    return answers.summary(outputs, labels)


@st.composite
def broken_arrays(draw):
    """A floating-point output of any type, and whether it holds NaN or an infinity."""
    datatype = draw(st.sampled_from(sorted(FLOATS)))
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, max_side=4))
    array = np.array(draw(arrays.arrays(np.float32, shape, elements=st.floats(-100, 100, width=16))))
    is_broken = draw(st.booleans())
    if is_broken:
        array.reshape(-1)[draw(st.integers(0, array.size - 1))] = draw(st.sampled_from(BROKEN))
    return OutputTensor("y", datatype, array.astype(NUMPY_TYPE[datatype])), is_broken


@settings(deadline=None)
@given(broken_arrays())
def test_nan_and_infinities_are_found_in_every_floating_type_and_place(case):
    array, is_broken = case
    assert summed(array).nonfinite is is_broken
    assert summed(output([1], "INT64", "first"), array).nonfinite is is_broken


@pytest.mark.parametrize("bits", [0x7FC0, 0x7F80, 0xFF80])
def test_a_bf16_output_is_broken_by_its_own_bits(bits):
    array = tensors.from_raw(bits.to_bytes(2, "little"), 1, "BF16", "y")
    assert summed(OutputTensor("y", "BF16", array)).nonfinite


@settings(deadline=None)
@given(
    st.sampled_from(NUMERIC),
    arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    st.data(),
)
def test_every_row_falls_into_one_bin_that_exists(datatype, shape, data):
    array = data.draw(arrays.arrays(NUMPY_TYPE[datatype], shape))
    bins = answers.value_bins(OutputTensor("y", datatype, array))
    assert bins.keys() <= EVERY_BIN
    rows = shape[0] if shape else 1
    assert sum(bins.values()) == (rows if array.size else 0)


@settings(deadline=None)
@given(st.floats(allow_nan=False).filter(bool))
def test_a_bin_names_the_power_of_two_at_or_below_the_magnitude(value):
    ((name, count),) = answers.value_bins(output([[value]], "FP64")).items()
    power = int(name.removeprefix(f"{name[0]}2^"))
    assert count == 1
    assert name[0] == ("+" if value > 0 else "-")
    assert abs(power) <= MAX_EXPONENT
    if 2.0**-MAX_EXPONENT <= abs(value) < 2.0 ** (MAX_EXPONENT + 1):
        assert 2.0**power <= abs(value) < 2.0 ** (power + 1)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ([0.125], "+2^-3"), ([-40.0, -24.0], "-2^5"), ([1.0, -1.0], "0"), ([math.nan, 1.0], NAN),
        ([1e-30], "+2^-20"), ([-1e30], "-2^20"), ([math.inf], "+2^20"), ([math.inf, -math.inf], NAN),
    ],
)  # fmt: skip
def test_bins_of_values(row, name):
    assert answers.value_bins(output([row], "FP64")) == {name: 1}


def test_texts_have_no_bins_and_an_output_of_no_dimension_is_one_row():
    assert summed(output([b"a", b"b"], "BYTES")).bins == {}
    assert summed(output(3.0)).bins == {"+2^1": 1}


def test_the_first_output_alone_is_binned():
    assert summed(output([[1.0]]), output([[64.0], [64.0]], name="z")).bins == {"+2^0": 1}


def test_a_label_is_the_class_whatever_its_neighbours_say():
    scores = output([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], name="probabilities")
    label = output([b"cat", b"dog", b"\xff"], "BYTES", "label")
    found = summed(scores, label)
    assert (found.decides, found.decisions) == ("class", ("cat", "dog", "\ufffd"))
    assert found.bins == {"cat": 1, "dog": 1, "\ufffd": 1}


@pytest.mark.parametrize(
    ("name", "labels", "decisions"),
    [
        ("logits", (), ("2", "0")), ("probabilities", ("a", "b", "c"), ("c", "a")),
        ("anything", ("a", "b", "c"), ("c", "a")), ("logits", ("a",), ("2", "a")),
    ],
)  # fmt: skip
def test_the_largest_score_is_the_class_by_its_label_or_index(name, labels, decisions):
    found = summed(output([[0, 1, 5], [3, 2, 1]], name=name), labels=labels)
    assert (found.decides, found.decisions) == ("class", decisions)
    assert found.bins == Counter(decisions)


@pytest.mark.parametrize("values", [[[1.0, 2.0]], [1.0, 2.0], [[1.0], [2.0]]])
def test_other_outputs_decide_nothing(values):
    found = summed(output(values))
    assert (found.decides, found.decisions) == ("", ())


def test_a_row_of_nan_scores_decides_nan():
    found = summed(output([[math.nan, 1.0], [0.0, math.inf]], name="logits"))
    assert found.decisions == (NAN, "1")
    assert found.nonfinite


def test_token_logits_decide_the_likeliest_token_of_the_last_position():
    logits = np.zeros((2, 3, 8), np.float32)
    logits[0, 2, 5] = logits[1, 2, 7] = 1.0
    logits[:, 0, 1] = 9.0
    found = summed(OutputTensor("logits", "FP32", logits))
    assert (found.decides, found.decisions) == ("token", ("5", "7"))


@settings(deadline=None)
@given(st.integers(2, 400), st.lists(st.integers(0, 10_000), min_size=1, max_size=300))
def test_there_are_at_most_so_many_bins_of_classes_and_no_row_is_lost(columns, picks):
    scores = np.zeros((len(picks), columns), np.float32)
    scores[np.arange(len(picks)), np.array(picks) % columns] = 1.0
    found = summed(OutputTensor("logits", "FP32", scores))
    assert sum(found.bins.values()) == len(picks)
    assert len(found.bins) <= MAX_CLASSES
    assert len(found.decisions) == (len(picks) if len(picks) <= MAX_DECISIONS else 0)


@settings(deadline=None)
@given(st.permutations(range(200)))
def test_many_classes_are_sorted_alike_in_whatever_order_they_come(order):
    scores = np.eye(200, dtype=np.float32)
    at_once = summed(OutputTensor("logits", "FP32", scores)).bins
    one_by_one = Counter()
    for index in order:
        answers.count_bins(one_by_one, summed(OutputTensor("logits", "FP32", scores[index : index + 1])).bins)
    assert one_by_one == at_once
    assert OTHER not in one_by_one


@settings(deadline=None)
@given(st.lists(st.text(max_size=5), max_size=400))
def test_bins_of_an_agent_are_bounded_and_add_up(names):
    bins = Counter()
    for name in names:
        answers.count_bins(bins, {name: 2})
    assert sum(bins.values()) == 2 * len(names)
    assert len(bins) <= MAX_BINS + 1
