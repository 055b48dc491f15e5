"""Messages of the gRPC service to the agent's own and back. Pure."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, Final

from google.protobuf.message import DecodeError  # type: ignore[import-untyped] # has no types

from serving_agent import parameters, tensors
from serving_agent.contract import proto
from serving_agent.errors import InvalidRequestError
from serving_agent.messages import (
    FlatData,
    InferReply,
    InferRequest,
    Parameters,
    RawData,
    TensorData,
    WireTensor,
)

CONTENTS_FIELD: Final[dict[str, str]] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Datatype → field of InferTensorContents; FP16 and BF16 exist in raw form only."""
RAW_ONLY: Final = ("FP16", "BF16")
UNSUPPORTED: Final = ("shared_memory_region", "classification")
"""Tensor parameters that change the meaning of a request and that this agent does not know."""
RAW_OUTPUT_TAG: Final = b"\x32"
"""Field 6 of ModelInferResponse, length-delimited: `raw_output_contents`."""
INFER_RESPONSE_TAG: Final = b"\x12"
"""Field 2 of ModelStreamInferResponse, length-delimited: `infer_response`."""


def parse(message: Any, data: bytes) -> Any:
    """Fill the empty *message* from *data* and return it. Raises InvalidRequestError."""
    try:
        message.MergeFromString(data)
    except DecodeError:
        raise InvalidRequestError(f"the message is not a valid {message.DESCRIPTOR.name}") from None
    return message


def decode(message: Any, timeout_s: float | None) -> InferRequest:
    """Return the request in *message*; its client waits *timeout_s* more. Raises InvalidRequestError."""
    inputs, raw = message.inputs, message.raw_input_contents
    if not inputs:
        raise InvalidRequestError("'inputs' must not be empty")
    if raw and len(raw) != len(inputs):
        raise InvalidRequestError(
            f"raw_input_contents holds {len(raw)} tensors for {len(inputs)} inputs; it is all or none"
        )
    own: Parameters = ()
    if message.parameters:
        given = _parameters(message)
        own = parameters.own(given)
        limits = (timeout_s, parameters.timeout_s(given))
        timeout_s = min((limit for limit in limits if limit is not None), default=None)
    return InferRequest(
        model=message.model_name,
        version=message.model_version,
        inputs=tuple([_input(tensor, raw[index] if raw else None) for index, tensor in enumerate(inputs)]),
        outputs=tuple([_output(output) for output in message.outputs]),
        id=message.id,
        timeout_s=timeout_s,
        parameters=own,
    )


def encode(reply: InferReply, model: str, version: str, *, is_streamed: bool = False) -> bytes:
    """Return a serialized ModelInferResponse with raw contents.

    It is put together from its parts, because protobuf would copy each tensor twice: a message's fields may
    come in any order (protobuf's encoding, "Field Order"). On a stream it says that it is final.
    """
    described = tuple([(output.name, output.datatype, output.array.shape) for output in reply.outputs])
    parts: list[bytes | memoryview] = [_described(model, version, described)]
    if reply.id:
        parts.append(proto.message_class("ModelInferResponse")(id=reply.id).SerializeToString())
    if is_streamed:
        parts.append(_final())
    for output in reply.outputs:
        raw = tensors.to_raw(output.array, output.datatype)
        parts += (RAW_OUTPUT_TAG, varint(len(raw)), raw)
    return b"".join(parts)


def on_stream(response: bytes) -> bytes:
    """Return a serialized ModelStreamInferResponse that holds the serialized *response*."""
    return b"".join((INFER_RESPONSE_TAG, varint(len(response)), response))


def refusal_on_stream(request: Any, sentence: str) -> bytes:
    """Return a serialized ModelStreamInferResponse that tells why *request* has no answer."""
    response = proto.message_class("ModelInferResponse")(
        id=request.id, model_name=request.model_name, model_version=request.model_version
    )
    message = proto.message_class("ModelStreamInferResponse")(error_message=sentence, infer_response=response)
    return bytes(message.SerializeToString()) + on_stream(_final())


def varint(number: int) -> bytes:
    """Return *number*, at least 0, in protobuf's variable-length form."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


@lru_cache(maxsize=256)
def _described(model: str, version: str, outputs: tuple[tuple[str, str, tuple[int, ...]], ...]) -> bytes:
    """Return what all responses of one shape have in common: few shapes come again and again."""
    response = proto.message_class("ModelInferResponse")(model_name=model, model_version=version)
    for name, datatype, shape in outputs:
        response.outputs.add(name=name, datatype=datatype, shape=shape)
    return bytes(response.SerializeToString())


@cache
def _final() -> bytes:
    """Return the part of a response that says that it is the request's last.

    Triton sets it on every answer of a stream. `triton_enable_empty_final_response` asks for one more answer,
    but only of models that answer one request several times.
    """
    response = proto.message_class("ModelInferResponse")()
    response.parameters["triton_final_response"].bool_param = True
    return bytes(response.SerializeToString())


def _parameters(message: Any) -> dict[str, Any]:
    given = {}
    for name, parameter in message.parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        given[name] = None if choice is None else getattr(parameter, choice)
    return given


def _input(tensor: Any, raw: bytes | None) -> WireTensor:
    if tensor.parameters:
        _refuse_unsupported(tensor)
    if raw is not None and tensor.HasField("contents") and tensor.contents.ListFields():
        raise InvalidRequestError(f"input {tensor.name!r} has both contents and raw_input_contents")
    data: TensorData = _typed(tensor) if raw is None else RawData(raw)
    return WireTensor(tensor.name, tensor.datatype, tuple(tensor.shape), data)


def _typed(tensor: Any) -> FlatData:
    """Return the values of the field that belongs to the datatype; validation refuses unknown datatypes."""
    filled = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    wanted = CONTENTS_FIELD.get(tensor.datatype)
    if wanted is None:
        if tensor.datatype in RAW_ONLY:
            raise InvalidRequestError(f"input {tensor.name!r}: {tensor.datatype} needs raw_input_contents")
        return FlatData(())
    if wrong := [name for name in filled if name != wanted]:
        raise InvalidRequestError(
            f"input {tensor.name!r}: {tensor.datatype} belongs in {wanted}, not in {wrong[0]}"
        )
    return FlatData(getattr(tensor.contents, wanted))


def _output(output: Any) -> str:
    if output.parameters:
        _refuse_unsupported(output)
    return str(output.name)


def _refuse_unsupported(tensor: Any) -> None:
    for name in UNSUPPORTED:
        if name in tensor.parameters:
            raise InvalidRequestError(f"{tensor.name!r}: the parameter {name!r} is not supported")
