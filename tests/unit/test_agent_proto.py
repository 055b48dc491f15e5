import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_agent import grpc_codec
from serving_agent.contract import proto
from serving_agent.contract.proto import build
from serving_agent.errors import InvalidRequestError


def test_the_descriptor_file_is_what_the_proto_files_say(tmp_path):
    assert build.build(tmp_path / "fresh.pb").read_bytes() == proto.DESCRIPTOR_FILE.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["fresh.pb"]


def test_a_missing_descriptor_file_says_how_to_make_it(tmp_path, monkeypatch):
    monkeypatch.setattr(proto, "DESCRIPTOR_FILE", tmp_path / "open_inference.pb")
    proto._pool.cache_clear()
    with pytest.raises(proto.DescriptorMissingError, match=r"serving_agent\.contract\.proto\.build"):
        proto._pool()
    monkeypatch.undo()
    proto._pool.cache_clear()
    assert proto._pool()


def test_enums_are_known_by_name():
    assert proto.enum_value("DataType", "TYPE_FP32") == 11
    with pytest.raises(KeyError):
        proto.enum_value("DataType", "TYPE_FP7")


def request(**tensor):
    return proto.message_class("ModelInferRequest")(
        model_name="m", inputs=[{"name": "x", "shape": [1], **tensor}]
    )


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (proto.message_class("ModelInferRequest")(), "'inputs' must not be empty"),
        (
            request(datatype="FP32", contents={"fp64_contents": [1.0]}),
            "FP32 belongs in fp32_contents, not in fp64",
        ),
        (request(datatype="FP16"), "FP16 needs raw_input_contents"),
        (
            request(datatype="FP32", parameters={"shared_memory_region": {"string_param": "r"}}),
            "is not supported",
        ),
        (
            proto.message_class("ModelInferRequest")(inputs=[{"name": "x"}], raw_input_contents=[b"", b""]),
            "raw_input_contents holds 2 tensors for 1 inputs",
        ),
    ],
)
def test_messages_that_break_the_protocol(message, sentence):
    with pytest.raises(InvalidRequestError, match=sentence):
        grpc_codec.decode(message, None)


@given(st.binary(max_size=80))
def test_any_message_is_a_request_or_a_sentence(content):
    from google.protobuf.message import DecodeError

    try:
        message = proto.message_class("ModelInferRequest").FromString(content)
    except DecodeError:
        return
    try:
        grpc_codec.decode(message, 1.0)
    except InvalidRequestError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
