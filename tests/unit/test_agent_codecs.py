import json

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving_agent import predict_codec, rest_codec, validation
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.errors import AgentError, InvalidRequestError, TooLargeError
from serving_agent.messages import InferReply, OutputTensor

SIGNATURE = Signature(
    (TensorSpec("a", "FP32", (-1, 2)), TensorSpec("b", "INT64", (-1,))), (TensorSpec("y", "FP32", (-1, 2)),)
)
ONE = Signature((TensorSpec("a", "FP32", (-1, 2)),), (TensorSpec("y", "FP32", (-1, 2)),))
A = {"name": "a", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}
B = {"name": "b", "datatype": "INT64", "shape": [1], "data": [3]}


def infer(body, json_length=None):
    decoded = rest_codec.decode(body, json_length, "m", "")
    return validation.decode_inputs(SIGNATURE, decoded.request.inputs, "reject")


def refused(*inputs, **envelope):
    with pytest.raises(InvalidRequestError) as caught:
        infer(orjson.dumps({"inputs": list(inputs), **envelope}))
    return str(caught.value)


def test_nested_and_flat_data_are_the_same():
    nested = infer(orjson.dumps({"inputs": [B, {**A, "data": [[1, 2.0]]}]}))
    flat = infer(orjson.dumps({"inputs": [A, B]}))
    assert list(nested) == ["a", "b"]
    assert nested["a"].tolist() == flat["a"].tolist() == [[1.0, 2.0]]
    assert nested["a"].dtype == np.float32


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ((A,), "missing input 'b'"),
        ((A, B, B), "input 'b' is given twice"),
        ((A, B, {**B, "name": "c"}), "unknown input 'c'; this model takes 'a', 'b'"),
        (({**A, "datatype": "FP64"}, B), "input 'a' must be FP32, not FP64"),
        (({**A, "datatype": "FLOAT"}, B), "unknown datatype 'FLOAT'"),
        (
            ({**A, "shape": [2, 1]}, B),
            "input 'a' must have shape [-1, 2], not [2, 1] (-1 stands for any size)",
        ),
        (({**A, "shape": [0, 2], "data": []}, B), "must hold sizes of at least 1"),
        (({**A, "shape": [1.5, 2]}, B), "shape must be a list of whole numbers"),
        (({**A, "shape": [True, 2]}, B), "shape must be a list of whole numbers"),
        (({**A, "data": [[1.0], [2.0]]}, B), "data is nested as [2, 1], but its shape is [1, 2]"),
        (({**A, "data": "12"}, B), "data must be a list"),
        (
            ({**A, "shape": [2, 2], "data": [1, 2, 3, 4]}, B),
            "disagree on the number of rows: 'a' has 2, 'b' has 1",
        ),
        (
            ({**A, "parameters": {"binary_data_size": 8}}, B),
            "binary_data_size 8 is more than the 0 bytes left",
        ),
        (({**A, "parameters": {"shared_memory_region": "r"}}, B), "'shared_memory_region' is not supported"),
        (({**A, "name": 7}, B), "'name' of an input must be a string"),
        ((7,), "every element of 'inputs' must be an object"),
        ((), "'inputs' must not be empty"),
    ],
)
def test_faults_are_told_in_a_sentence(inputs, sentence):
    assert sentence in refused(*inputs)


def test_a_shape_is_bounded_before_anything_is_allocated():
    body = orjson.dumps({"inputs": [{**A, "shape": [2**62, 2]}, {**B, "shape": [2**62]}]})
    with pytest.raises(TooLargeError, match=r"shape \[4611686018427387904, 2\] holds more than the limit of"):
        infer(body)
    request = rest_codec.decode(orjson.dumps({"inputs": [A, B]}), None, "m", "").request
    assert validation.decode_inputs(SIGNATURE, request.inputs, "reject", max_elements=2)
    with pytest.raises(TooLargeError, match=r"shape \[1, 2\] holds more than the limit of 1 elements"):
        validation.decode_inputs(SIGNATURE, request.inputs, "reject", max_elements=1)


def wide_signature(datatype, *shape):
    return Signature((TensorSpec("a", datatype, shape),), ONE.outputs)


DATA = {
    "FP32": st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=9),
    "INT64": st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=9),
    "UINT64": st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=9),
    "UINT8": st.lists(st.integers(0, 255), min_size=2, max_size=9),
    "BOOL": st.lists(st.booleans(), min_size=2, max_size=9),
    "BYTES": st.lists(st.text(max_size=3) | st.just("["), min_size=2, max_size=9),
}


@settings(deadline=None)
@given(st.sampled_from(sorted(DATA)), st.data(), st.booleans(), st.sampled_from([1, 7, 500]))
def test_small_and_large_bodies_nested_and_flat_are_the_same_tensor(datatype, data, nested, rows):
    row = data.draw(DATA[datatype])
    values = [row] * rows
    tensor = {"name": "a", "datatype": datatype, "shape": [rows, len(row)]}
    tensor["data"] = values if nested else row * rows
    body = orjson.dumps({"inputs": [tensor]})
    signature = wide_signature(datatype, -1, len(row))
    wanted = [[item.encode() if isinstance(item, str) else item for item in row]] * rows
    for content in (body, body + b" " * 5000):
        request = rest_codec.decode(content, None, "m", "").request
        array = validation.decode_inputs(signature, request.inputs, "reject")["a"]
        assert array.tolist() == wanted
    for content in (orjson.dumps({"input": values}), orjson.dumps({"input": {"a": values}}) + b" " * 5000):
        request = predict_codec.decode(content, "m", signature)
        assert validation.decode_inputs(signature, request.inputs, "reject")["a"].tolist() == wanted


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ([[1.0] * 100] * 99, "data is nested as [99, 100], but its shape is [100, 100]"),
        ([1.0] * 9999, "9999 elements of data, but shape [100, 100] holds 10000"),
        ([[1.0] * 100] * 99 + [[1.0] * 99], "data is ragged: rows hold 99, 100 elements"),
        ([[1.0] * 100] * 99 + [1.0], "data mixes lists and values"),
        ([[1.0] * 100] * 99 + [[1.0] * 99 + ["x"]], "the string 'x' is not of type FP32"),
        ([[1.0] * 100] * 99 + [[1.0] * 99 + [1e39]], "1e+39 does not fit FP32"),
        ([[1.0] * 100] * 99 + [[1.0] * 99 + [True]], "true is not of type FP32"),
    ],
)
def test_faults_of_large_tensors_are_told_in_a_sentence(data, sentence):
    body = orjson.dumps({"inputs": [{"name": "a", "datatype": "FP32", "shape": [100, 100], "data": data}]})
    request = rest_codec.decode(body, None, "m", "").request
    with pytest.raises(InvalidRequestError) as caught:
        validation.decode_inputs(wide_signature("FP32", -1, 100), request.inputs, "reject")
    assert sentence in str(caught.value)


@pytest.mark.parametrize("datatype", ["BOOL", "BYTES", "INT8"])
def test_large_tensors_of_the_wrong_type_are_refused(datatype):
    data = {"name": "a", "datatype": datatype, "shape": [1, 5000], "data": [0.5] * 5000}
    request = rest_codec.decode(orjson.dumps({"inputs": [data]}), None, "m", "").request
    with pytest.raises(InvalidRequestError, match=r"input 'a': 0\.5 is not "):
        validation.decode_inputs(wide_signature(datatype, -1, 5000), request.inputs, "reject")


@pytest.mark.parametrize("rows", [[[0.5] * 3000], [0.5] * 3000])
def test_predict_takes_one_large_row_with_and_without_the_row_dimension(rows):
    request = predict_codec.decode(orjson.dumps({"input": rows}), "m", wide_signature("FP32", -1, 3000))
    arrays = validation.decode_inputs(wide_signature("FP32", -1, 3000), request.inputs, "reject")
    assert arrays["a"].tolist() == [[0.5] * 3000]


def test_unknown_outputs_are_refused():
    with pytest.raises(InvalidRequestError, match="unknown output 'z'; this model returns 'y'"):
        validation.select_outputs(SIGNATURE, ("z",))
    with pytest.raises(InvalidRequestError, match="twice"):
        validation.select_outputs(SIGNATURE, ("y", "y"))


def test_binary_tensors_follow_the_json_in_order():
    head = orjson.dumps(
        {
            "inputs": [
                {**{k: A[k] for k in ("name", "datatype", "shape")}, "parameters": {"binary_data_size": 8}},
                {**{k: B[k] for k in ("name", "datatype", "shape")}, "parameters": {"binary_data_size": 8}},
            ]
        }
    )
    body = head + np.array([1, 2], "<f4").tobytes() + np.array([3], "<i8").tobytes()
    arrays = infer(body, str(len(head)))
    assert arrays["a"].tolist() == [[1.0, 2.0]]
    assert arrays["b"].tolist() == [3]
    with pytest.raises(InvalidRequestError, match="1 bytes of binary data belong to no input"):
        infer(body + b"\0", str(len(head)))
    for bad in ("-1", "x", "", str(len(body) + 1), "9" * 5000, "0" * 5000 + "1", "²"):
        with pytest.raises(InvalidRequestError, match="inference-header-content-length"):
            infer(body, bad)


@given(st.binary(max_size=60), st.none() | st.text(max_size=4))
def test_any_body_is_a_request_or_a_sentence(body, length):
    try:
        infer(body, length)
    except AgentError as error:
        assert str(error)  # noqa: PT017 - either outcome is right


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["a", "b", "FP32", "INT64"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "datatype", "data", "parameters"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)


@given(st.fixed_dictionaries({"inputs": JSON}, optional={"outputs": JSON, "parameters": JSON, "id": JSON}))
def test_any_json_is_a_request_or_a_sentence(value):
    try:
        infer(json.dumps(value).encode())
    except InvalidRequestError as error:
        assert str(error)  # noqa: PT017 - either outcome is right


def test_replies_leave_out_what_is_absent_and_follow_the_wanted_form():
    reply = InferReply("", (OutputTensor("y", "FP32", np.array([[1, 2]], np.float32)),))
    plain = rest_codec.decode(orjson.dumps({"inputs": [A]}), None, "m", "")
    encoded = rest_codec.encode(reply, "m", "1", plain.form)
    assert encoded.json_length is None
    assert orjson.loads(b"".join(encoded.parts)) == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}],
    }
    wanted = {"inputs": [A], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    form = rest_codec.decode(orjson.dumps(wanted), None, "m", "").form
    encoded = rest_codec.encode(reply, "m", "1", form)
    head, raw = encoded.parts
    assert len(head) == encoded.json_length
    assert orjson.loads(head)["outputs"][0]["parameters"] == {"binary_data_size": 8}
    assert bytes(raw) == np.array([1, 2], "<f4").tobytes()


@pytest.mark.parametrize(
    ("value", "rows"), [([[1, 2]], [[1, 2]]), ([1, 2], [[1, 2]]), ({"a": [[1, 2], [3, 4]]}, [[1, 2], [3, 4]])]
)
def test_predict_takes_rows_one_row_or_names(value, rows):
    request = predict_codec.decode(orjson.dumps({"input": value}), "m", ONE)
    assert validation.decode_inputs(ONE, request.inputs, "reject")["a"].tolist() == rows


def test_predict_takes_a_single_text():
    text = Signature((TensorSpec("text", "BYTES", (-1,)),), ONE.outputs)
    request = predict_codec.decode(b'{"input": "hello"}', "m", text)
    assert validation.decode_inputs(text, request.inputs, "reject")["text"].tolist() == [b"hello"]


@given(JSON)
def test_any_predict_body_is_a_request_or_a_sentence(value):
    for signature in (ONE, SIGNATURE):
        try:
            request = predict_codec.decode(json.dumps({"input": value}).encode(), "m", signature)
            validation.decode_inputs(signature, request.inputs, "reject")
        except InvalidRequestError as error:
            assert str(error)  # noqa: PT017 - either outcome is right


def test_predict_faults():
    for body, sentence in (
        (b"[]", "must be a JSON object"),
        (b"{}", "'input' is missing"),
        (b'{"input": [[1, 2]], "inputs": 1}', "unknown key 'inputs'"),
        (b'{"input": [[1, 2]]', "is not JSON"),
    ):
        with pytest.raises(InvalidRequestError, match=sentence):
            predict_codec.decode(body, "m", ONE)
    with pytest.raises(InvalidRequestError, match="several inputs"):
        predict_codec.decode(b'{"input": [1]}', "m", SIGNATURE)
