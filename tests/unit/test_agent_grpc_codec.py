"""gRPC messages to arrays and back, for every datatype; parameters; refusals."""

import logging
import math

import grpc
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving_agent import errors, grpc_codec, grpc_refusal, parameters, tensors, validation
from serving_agent.contract import proto
from serving_agent.contract.signature import DATATYPES, Signature, TensorSpec
from serving_agent.datatypes import NUMPY_TYPE
from serving_agent.errors import InvalidRequestError, NotReadyError, TooManyError
from serving_agent.messages import InferReply, OutputTensor

SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, max_side=4)


def values(datatype, shape):
    if datatype == "BYTES":
        return arrays.arrays(object, shape, elements=st.binary(max_size=5), fill=st.nothing())
    if datatype == "BF16":
        return arrays.arrays(np.uint16, shape, elements=st.integers(0, 0x7F7F)).map(widened)
    floats = {"allow_nan": False, "allow_infinity": False} if datatype.startswith("FP") else None
    return arrays.arrays(NUMPY_TYPE[datatype], shape, elements=floats)


def widened(upper):
    """The float32 values whose upper halves are *upper*."""
    return (upper.astype(np.uint32) << 16).view(np.float32)


ARRAYS = st.tuples(st.sampled_from(DATATYPES), SHAPES).flatmap(
    lambda one: st.tuples(st.just(one[0]), values(*one))
)


def message(datatype, array, *, raw):
    tensor = {"name": "x", "datatype": datatype, "shape": array.shape}
    if raw:
        contents = [bytes(tensors.to_raw(array, datatype))]
        return proto.message_class("ModelInferRequest")(inputs=[tensor], raw_input_contents=contents)
    tensor["contents"] = {grpc_codec.CONTENTS_FIELD[datatype]: array.ravel().tolist()}
    return proto.message_class("ModelInferRequest")(inputs=[tensor])


def received(request, datatype, rank):
    signature = Signature((TensorSpec("x", datatype, (-1,) * rank),), ())
    return validation.decode_inputs(signature, request.inputs, "reject", 10_000)["x"]


@given(ARRAYS, st.booleans())
def test_a_tensor_arrives_as_it_was_sent(typed, raw):
    datatype, array = typed
    sent = message(datatype, array, raw=raw or datatype in grpc_codec.RAW_ONLY)
    packed = grpc_codec.parse(proto.message_class("ModelInferRequest")(), sent.SerializeToString())
    got = received(grpc_codec.decode(packed, None), datatype, array.ndim)
    assert got.shape == array.shape
    assert got.tolist() == array.tolist()


@given(st.lists(ARRAYS, max_size=3), st.text(max_size=5), st.booleans())
def test_a_reply_is_the_message_that_protobuf_would_write(typed, request_id, is_streamed):
    outputs = tuple(
        OutputTensor(f"y{number}", datatype, array) for number, (datatype, array) in enumerate(typed)
    )
    data = grpc_codec.encode(InferReply(request_id, outputs), "m", "2", is_streamed=is_streamed)
    expected = proto.message_class("ModelInferResponse")(
        model_name="m",
        model_version="2",
        id=request_id,
        outputs=[{"name": one.name, "datatype": one.datatype, "shape": one.array.shape} for one in outputs],
        raw_output_contents=[bytes(tensors.to_raw(one.array, one.datatype)) for one in outputs],
    )
    if is_streamed:
        expected.parameters["triton_final_response"].bool_param = True
    assert type(expected).FromString(data) == expected
    streamed = proto.message_class("ModelStreamInferResponse").FromString(grpc_codec.on_stream(data))
    assert (streamed.error_message, streamed.infer_response) == ("", expected)


@given(st.integers(0, 2**63 - 1))
def test_a_varint_is_what_protobuf_reads(number):
    statistics = proto.message_class("StatisticDuration").FromString(b"\x08" + grpc_codec.varint(number))
    assert statistics.count == number


def test_a_refusal_on_a_stream_names_what_it_answers():
    request = proto.message_class("ModelInferRequest")(id="7", model_name="m", model_version="3")
    data = grpc_codec.refusal_on_stream(request, "no such thing")
    answer = proto.message_class("ModelStreamInferResponse").FromString(data)
    assert answer.error_message == "no such thing"
    response = answer.infer_response
    assert (response.id, response.model_name, response.model_version) == ("7", "m", "3")
    assert response.parameters["triton_final_response"].bool_param


@given(st.binary(max_size=60))
def test_no_bytes_make_the_parser_fail_otherwise(data):
    request = proto.message_class("ModelInferRequest")()
    try:
        grpc_codec.decode(grpc_codec.parse(request, data), None)
    except InvalidRequestError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
    else:
        assert request.inputs


SCALARS = st.one_of(st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=4))
NAMES = st.one_of(
    st.text(max_size=6), st.sampled_from([*parameters.PROTOCOL_NAMES, "sequence_id", "triton_final_response"])
)


@given(st.dictionaries(NAMES, SCALARS, max_size=6))
def test_own_parameters_are_sorted_and_without_the_protocols(given_):
    own = parameters.own(given_)
    assert [name for name, _ in own] == sorted(
        name
        for name in given_
        if name not in parameters.PROTOCOL_NAMES and not name.startswith(parameters.PROTOCOL_PREFIXES)
    )
    assert all(value is given_[name] for name, value in own)


@pytest.mark.parametrize("value", [None, [1], {"a": 1}])
def test_a_parameter_that_is_no_scalar_is_refused(value):
    with pytest.raises(InvalidRequestError, match="'mine' must be a boolean, a number or a string"):
        parameters.own({"mine": value})


@given(st.integers(0, 2**63 - 1), st.one_of(st.none(), st.floats(0, 1e6)))
def test_tritons_timeout_lowers_the_deadline(timeout_us, waits_s):
    sent = message("FP32", np.zeros((1, 1), np.float32), raw=True)
    sent.parameters["timeout"].int64_param = timeout_us
    limits = [limit for limit in (waits_s, timeout_us / 1e6 if timeout_us else None) if limit is not None]
    request = grpc_codec.decode(sent, waits_s)
    assert request.timeout_s == min(limits, default=None)
    assert request.parameters == ()


@pytest.mark.parametrize("value", [-1, 1.0, "1", True, None, math.nan])
def test_a_timeout_that_is_none_is_refused(value):
    with pytest.raises(InvalidRequestError, match="'timeout' must be a whole number"):
        parameters.timeout_s({"timeout": value})


@pytest.mark.parametrize(
    ("error", "code", "is_retried"),
    [
        (NotReadyError("a"), grpc.StatusCode.UNAVAILABLE, True),
        (TooManyError("a"), grpc.StatusCode.RESOURCE_EXHAUSTED, True),
        (InvalidRequestError("a"), grpc.StatusCode.INVALID_ARGUMENT, False),
        (errors.TooLargeError("a"), grpc.StatusCode.RESOURCE_EXHAUSTED, False),
        (errors.DeadlineError("a"), grpc.StatusCode.DEADLINE_EXCEEDED, False),
    ],
)
def test_a_refusal_tells_when_to_come_back_only_where_that_helps(error, code, is_retried):
    refusal = grpc_refusal.refusal_of(error)
    assert (refusal.code, refusal.sentence, refusal.error) == (code, "a", error)
    assert refusal.metadata == ((("grpc-retry-pushback-ms", "1000"),) if is_retried else ())


def test_the_agents_own_failure_is_logged_and_not_told(caplog):
    with caplog.at_level(logging.ERROR):
        refusal = grpc_refusal.refusal_of(ZeroDivisionError("secret"))
    assert (refusal.http_status, refusal.code, refusal.error) == (500, grpc.StatusCode.INTERNAL, None)
    assert "secret" not in refusal.sentence
    assert "secret" in caplog.text
