"""Large tensors read ahead of validation: the same arrays and the same refusals."""

import json

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_agent import rest_codec, tensors, validation
from serving_agent.contract.signature import DATATYPES, Signature, TensorSpec
from serving_agent.errors import InvalidRequestError
from serving_agent.messages import FlatData, JsonData, RawData, WireTensor
from serving_agent.predecoding import LARGE, is_slow, with_arrays

JSON = st.recursive(
    st.booleans() | st.integers(-3, 300) | st.floats(-2, 2) | st.text(max_size=2) | st.none(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)
VALUES = {"BOOL": [True, False], "BYTES": [b"", b"ab\0", b"c"], "FP32": [1.5, float("nan"), -0.0]}


def outcome(tensor, nan_policy="pass"):
    """The array, or the sentence of its refusal."""
    signature = Signature((TensorSpec("x", tensor.datatype, (-1,) * len(tensor.shape)),), ())
    try:
        array = validation.decode_inputs(signature, (tensor,), nan_policy)["x"]
    except InvalidRequestError as error:
        return str(error)
    return array.dtype, array.shape, array.tobytes() if array.dtype != object else array.tolist()


def early(tensor, nan_policy="pass"):
    try:
        return outcome(*with_arrays((tensor,)), nan_policy)
    except InvalidRequestError as error:
        return str(error)


@given(
    st.sampled_from(DATATYPES),
    st.lists(JSON, max_size=4),
    st.lists(st.integers(1, 3), min_size=1, max_size=2),
)
def test_json_gives_the_same_array_or_is_refused_either_way(datatype, data, shape):
    tensor = WireTensor("x", datatype, tuple(shape), JsonData(data))
    found, wanted = early(tensor), outcome(tensor)
    assert found == wanted or (isinstance(found, str) and isinstance(wanted, str))


@given(st.binary(max_size=30), st.integers(-2, 6))
def test_raw_texts_give_the_same_array_or_are_refused_either_way(content, count):
    tensor = WireTensor("x", "BYTES", (count,), RawData(content))
    found, wanted = early(tensor), outcome(tensor)
    assert found == wanted or (isinstance(found, str) and isinstance(wanted, str))


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name not in ("FP16", "BF16")])
@pytest.mark.parametrize("nan_policy", ["pass", "reject"])
def test_protobufs_values_give_the_same_array_either_way(datatype, nan_policy):
    values = VALUES.get(datatype, [1, 2, 3])
    tensor = WireTensor("x", datatype, (len(values),), FlatData(values))
    assert early(tensor, nan_policy) == outcome(tensor, nan_policy)
    assert ("NaN" in early(tensor, nan_policy)) == (datatype == "FP32" and nan_policy == "reject")


@pytest.mark.parametrize(
    "data", [JsonData("text"), JsonData({}), FlatData(()), RawData(np.ones(3, "f4").tobytes())]
)
def test_what_there_is_nothing_to_read_of_is_left_to_validation(data):
    tensor = WireTensor("x", "FP32", (3,), data)
    assert with_arrays((tensor,)) == (tensor,)
    unknown = WireTensor("x", "FP31", (3,), JsonData([1]))
    assert with_arrays((unknown,)) == (unknown,)


def test_numbers_of_a_large_body_stay_what_they_are():
    tensor = {"name": "x", "datatype": "FP32", "shape": [5000], "data": [0.5] * 5000}
    (read,) = rest_codec.decode(orjson.dumps({"inputs": [tensor]}), None, "m", "").request.inputs
    assert with_arrays((read,))[0].data is read.data
    assert tensors.from_numbers(read.data.values.values, "FP32", "x").dtype == np.float32


def test_large_json_texts_and_packed_bodies_are_slow():
    head = json.dumps({"inputs": [{"name": "x", "datatype": "BYTES"}]}).encode()
    escaped = head.replace(b"BYTES", b"\\u0042YTES")
    numbers = head.replace(b"BYTES", b"FP32")
    tail = b"BYTES\\" + bytes(LARGE)
    assert is_slow(bytes(LARGE), LARGE, is_packed=False)
    assert not is_slow(bytes(LARGE - 1), LARGE - 1, is_packed=False)
    assert is_slow(head + tail, len(head), is_packed=False)
    assert is_slow(escaped + tail, len(escaped), is_packed=False)
    assert not is_slow(numbers + tail, len(numbers), is_packed=False)
    assert not is_slow(head, len(head), is_packed=False)
    assert is_slow(bytes(2000), 2000, is_packed=True)
    assert not is_slow(bytes(900), 900, is_packed=True)
