import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_agent import tensors
from serving_agent.contract.signature import DATATYPES
from serving_agent.datatypes import NUMPY_TYPE, wire_size
from serving_agent.errors import InvalidRequestError, ModelError

FIXED = [name for name in DATATYPES if name != "BYTES"]


@given(st.sampled_from(FIXED), st.binary(max_size=64))
def test_raw_tensors_survive_a_round_trip(datatype, content):
    size = wire_size(datatype)
    count = len(content) // size
    content = content[: count * size]
    if datatype == "BOOL":
        content = bytes(byte % 2 for byte in content)
    array = tensors.from_raw(content, count, datatype, "x")
    assert array.dtype == NUMPY_TYPE[datatype]
    assert tensors.to_raw(array, datatype) == content


@given(st.lists(st.binary(max_size=8), max_size=6))
def test_bytes_tensors_survive_a_round_trip(items):
    raw = b"".join(struct.pack("<I", len(item)) + item for item in items)
    array = tensors.from_raw(raw, len(items), "BYTES", "x")
    assert array.tolist() == items
    assert tensors.to_raw(array, "BYTES") == raw


@given(st.integers(0, 9), st.integers(1, 300))
def test_bytes_of_one_size_are_split_as_any_others_are(size, count):
    items = [bytes([number % 7] * size) for number in range(count)]
    raw = b"".join(struct.pack("<I", len(item)) + item for item in items)
    assert tensors.from_raw(raw, count, "BYTES", "x").tolist() == items
    for wrong in (raw + b"\0" * 4, raw[:-1], b"\xff\xff\xff\xff" + raw[4:]):
        with pytest.raises(InvalidRequestError, match="BYTES elements"):
            tensors.from_raw(wrong, count, "BYTES", "x")


@given(st.sampled_from(DATATYPES), st.binary(max_size=40), st.integers(-2, 2**70))
def test_any_raw_data_is_a_tensor_or_a_sentence(datatype, content, count):
    try:
        array = tensors.from_raw(content, count, datatype, "x")
    except InvalidRequestError as error:
        assert "'x'" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert array.size == count


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=10,
)


@given(st.sampled_from(DATATYPES), st.lists(JSON, max_size=4))
def test_any_json_data_is_a_tensor_or_a_sentence(datatype, data):
    try:
        values, shape = tensors.flatten(data, "x")
        array = tensors.from_values(values, datatype, "x")
    except InvalidRequestError as error:
        assert "'x'" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert array.size == len(values) == np.prod(shape)
        assert array.dtype == NUMPY_TYPE[datatype]


@pytest.mark.parametrize(
    ("datatype", "value", "sentence"),
    [
        ("FP32", "1.5", "the string '1.5' is not of type FP32"),
        ("FP32", True, "true is not of type FP32"),
        ("FP32", None, "null is not of type FP32"),
        ("FP32", {}, "an object is not of type FP32"),
        ("FP32", 1e39, "1e+39 does not fit FP32"),
        ("FP16", 70000.0, "70000.0 does not fit FP16"),
        ("FP64", 10**400, "a number does not fit FP64"),
        ("UINT8", 300, "300 does not fit UINT8, which holds 0 to 255"),
        ("UINT8", -1, "-1 does not fit UINT8, which holds 0 to 255"),
        ("INT64", 1.5, "1.5 is not of type INT64"),
        ("INT64", True, "true is not of type INT64"),
        ("INT64", 2**63, f"{2**63} does not fit INT64, which holds {-(2**63)} to {2**63 - 1}"),
        ("BOOL", 1, "1 is not a boolean"),
        ("BYTES", 1, "1 is not a string, which BYTES needs"),
    ],
)
def test_misfits_are_named(datatype, value, sentence):
    good = {"BOOL": True, "BYTES": "a"}.get(datatype, 0)
    with pytest.raises(InvalidRequestError) as caught:
        tensors.from_values([good, value], datatype, "x")
    assert str(caught.value) == f"input 'x': {sentence}"


NUMBERS = st.one_of(
    st.tuples(st.just(np.int64), st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5)),
    st.tuples(st.just(np.int64), st.lists(st.integers(-70_000, 70_000), min_size=1, max_size=5)),
    st.tuples(st.just(np.int64), st.lists(st.integers(-3, 300), min_size=1, max_size=5)),
    st.tuples(st.just(np.uint64), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=5)),
    st.tuples(
        st.just(np.float64),
        st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.floats(-9, 9), min_size=1, max_size=5),
    ),
)
"""The type and the values of a list of numbers as `json_body` hands it on."""


def outcome(convert, values, datatype):
    try:
        array = convert(values, datatype, "x")
    except InvalidRequestError as error:
        return str(error)
    return array.dtype, array.tolist()


@settings(max_examples=400)
@given(NUMBERS, st.sampled_from(DATATYPES))
def test_numbers_in_an_array_are_taken_and_refused_as_those_in_a_list(numbers, datatype):
    dtype, values = numbers
    array = np.array(values, dtype=dtype)
    assert outcome(tensors.from_numbers, array, datatype) == outcome(tensors.from_values, values, datatype)


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if "INT" in name])
@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_the_bounds_of_every_integer_type_fit_and_nothing_beyond(datatype, dtype):
    bounds, given_bounds = np.iinfo(NUMPY_TYPE[datatype]), np.iinfo(dtype)
    for value in (bounds.min - 1, bounds.min, bounds.max, bounds.max + 1):
        if given_bounds.min <= value <= given_bounds.max:
            fits = bounds.min <= value <= bounds.max
            found = outcome(tensors.from_numbers, np.array([value], dtype), datatype)
            assert found == ((NUMPY_TYPE[datatype], [value]) if fits else found)
            assert isinstance(found, str) != fits


def test_bytes_keep_trailing_zeros():
    assert tensors.from_values([b"a\0", "b"], "BYTES", "x").tolist() == [b"a\0", b"b"]


@given(st.floats(width=32, allow_nan=False, max_value=2.0**127, min_value=-(2.0**127)))
def test_bf16_is_the_nearest_value(value):
    array = tensors.from_values([value], "BF16", "x")
    assert array[0] == torch.tensor([value], dtype=torch.bfloat16).float().item()


def test_ragged_and_mixed_nesting_are_refused():
    with pytest.raises(InvalidRequestError, match="ragged: rows hold 1, 2 elements"):
        tensors.flatten([[1], [1, 2]], "x")
    with pytest.raises(InvalidRequestError, match="mixes lists and values"):
        tensors.flatten([[1], 1], "x")


def test_outputs_that_json_cannot_carry_are_named():
    from serving_agent.messages import OutputTensor
    from serving_agent.rest_codec import json_values

    with pytest.raises(ModelError, match="'y' holds NaN"):
        json_values(OutputTensor("y", "FP32", np.array([np.nan], dtype=np.float32)))
    with pytest.raises(ModelError, match="'y' is not UTF-8"):
        json_values(OutputTensor("y", "BYTES", np.array([b"\xff"], dtype=object)))
