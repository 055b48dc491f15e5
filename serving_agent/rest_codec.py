"""Bodies of the Open Inference Protocol's REST form, with or without binary tensors, read and written. Pure.

Whether a body carries binary tensors is told by the header `Inference-Header-Content-Length` alone, never by
its content type: clients send the JSON form with any or none.

JSON has no NaN: an output with NaN or infinite values is an error in JSON form and passes in binary form.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

from serving_agent import json_body, tensors
from serving_agent import parameters as request_parameters
from serving_agent.contract import wire
from serving_agent.errors import InvalidRequestError, ModelError
from serving_agent.messages import (
    InferReply,
    InferRequest,
    JsonData,
    OutputTensor,
    RawData,
    TensorData,
    WireTensor,
)

JSON_TYPE: Final = b"application/json"
BINARY_TYPE: Final = b"application/octet-stream"
MAX_LENGTH_DIGITS: Final = 18
"""Most digits of the header that tells the JSON part's size."""
UNSUPPORTED: Final = ("shared_memory_region", "classification")
"""Tensor parameters that change the meaning of a request and that this agent does not know."""


class ReplyForm(msgspec.Struct, frozen=True):
    """Which outputs of a reply are wanted in binary form."""

    named: frozenset[str] | None
    """Those wanted so among the outputs that the request names; None where it names none."""
    default: bool
    """Whether the outputs of a request that names none are wanted so."""

    def is_binary(self, output: str) -> bool:
        """Tell whether *output* is wanted in binary form."""
        return self.default if self.named is None else output in self.named


class Decoded(msgspec.Struct, frozen=True):
    """A request and the form its reply is wanted in."""

    request: InferRequest
    form: ReplyForm


class Encoded(msgspec.Struct, frozen=True):
    """A reply's body; `json_length` is set where binary tensors follow the JSON."""

    parts: tuple[bytes | memoryview, ...]
    """Sent one after another: the JSON, then each binary tensor."""
    json_length: int | None = None


def decode(body: bytes | bytearray, length: str | None, model: str, version: str) -> Decoded:
    """Return the request in *body*; *length* is the header's text. Raises InvalidRequestError."""
    split = len(body) if length is None else json_length(length, len(body))
    envelope = json_body.parse(body if split == len(body) else bytes(memoryview(body)[:split]))
    tail = memoryview(body)[split:]
    parameters = _object(envelope, "parameters", "the request")
    outputs = [_output(item) for item in _list(envelope, "outputs", required=False)]
    default = parameters.get("binary_data_output", False) is True
    request = InferRequest(
        model=model,
        version=version,
        inputs=_inputs(_list(envelope, "inputs", required=True), tail),
        outputs=tuple(name for name, _ in outputs),
        id=_text(envelope, "id", "the request", default=""),
        timeout_s=request_parameters.timeout_s(parameters),
        parameters=request_parameters.own(parameters),
    )
    binary = frozenset(name for name, wanted in outputs if (default if wanted is None else wanted))
    return Decoded(request, ReplyForm(binary if outputs else None, default))


def encode(reply: InferReply, model: str, version: str, form: ReplyForm) -> Encoded:
    """Return the body of *reply* in *form*. Raises ModelError (see the module)."""
    listed: list[dict[str, Any]] = []
    raw: list[bytes | memoryview] = []
    for output in reply.outputs:
        is_binary = form.is_binary(output.name)
        listed.append(_binary_output(output, raw) if is_binary else _json_output(output))
    envelope: dict[str, Any] = {"model_name": model, "model_version": version}
    if reply.id:
        envelope["id"] = reply.id
    head = orjson.dumps({**envelope, "outputs": listed}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Encoded((head, *raw), len(head) if raw else None)


def json_values(output: OutputTensor) -> Any:
    """Return an output's values in its shape, in a form orjson writes. Raises ModelError."""
    if not tensors.is_finite(output.array, output.datatype):
        raise ModelError(
            f"output {output.name!r} holds NaN or infinite values, which JSON cannot carry; "
            "ask for it in binary form or over gRPC"
        )
    try:
        return tensors.to_json(output.array, output.datatype)
    except UnicodeDecodeError:
        raise ModelError(
            f"output {output.name!r} is not UTF-8, which JSON needs; ask for it in binary form or over gRPC"
        ) from None


def _json_output(output: OutputTensor) -> dict[str, Any]:
    flat = OutputTensor(output.name, output.datatype, output.array.reshape(-1))
    return {**_described(output), "data": json_values(flat)}


def _binary_output(output: OutputTensor, raw: list[bytes | memoryview]) -> dict[str, Any]:
    raw.append(tensors.to_raw(output.array, output.datatype))
    return {**_described(output), "parameters": {"binary_data_size": len(raw[-1])}}


def _described(output: OutputTensor) -> dict[str, Any]:
    return {"name": output.name, "datatype": output.datatype, "shape": list(output.array.shape)}


def json_length(text: str, size: int) -> int:
    """Return the size of the JSON part of a body of *size* bytes; *text* is the header's.

    Raises InvalidRequestError.
    """
    is_number = text.isascii() and text.isdigit() and len(text) <= MAX_LENGTH_DIGITS
    if not is_number or int(text) > size:
        raise InvalidRequestError(
            f"{wire.JSON_LENGTH_HEADER} must be the JSON part's size in bytes, at most the body's {size}"
        )
    return int(text)


def _inputs(items: list[Any], tail: memoryview) -> tuple[WireTensor, ...]:
    if not items:
        raise InvalidRequestError("'inputs' must not be empty")
    inputs: list[WireTensor] = []
    offset = 0
    for item in items:
        tensor, used = _input(item, tail[offset:])
        offset += used
        inputs.append(tensor)
    if offset != len(tail):
        raise InvalidRequestError(f"{len(tail) - offset} bytes of binary data belong to no input")
    return tuple(inputs)


def _input(item: Any, tail: memoryview) -> tuple[WireTensor, int]:
    if not isinstance(item, dict):
        raise InvalidRequestError("every element of 'inputs' must be an object")
    name = _text(item, "name", "an input")
    data, used = _data(item, name, tail)
    return WireTensor(name, _text(item, "datatype", f"input {name!r}"), _shape(item, name), data), used


def _data(item: dict[str, Any], name: str, tail: memoryview) -> tuple[TensorData, int]:
    parameters = _object(item, "parameters", f"input {name!r}")
    _refuse_unsupported(parameters, f"input {name!r}")
    size = parameters.get("binary_data_size")
    if size is None:
        if "data" not in item:
            raise InvalidRequestError(f"input {name!r} has no data")
        data = item["data"]
        return JsonData(data), 0
    if type(size) is not int or not 0 <= size <= len(tail):
        raise InvalidRequestError(
            f"input {name!r}: binary_data_size {size!r} is more than the {len(tail)} bytes left"
        )
    return RawData(tail[:size]), size


def _shape(item: dict[str, Any], name: str) -> tuple[int, ...]:
    shape = item.get("shape")
    if not isinstance(shape, list) or any(type(size) is not int for size in shape):
        raise InvalidRequestError(f"input {name!r}: shape must be a list of whole numbers")
    return tuple(shape)


def _output(item: Any) -> tuple[str, bool | None]:
    """Return an output's name and whether it is wanted in binary form; None for the request's default."""
    if not isinstance(item, dict):
        raise InvalidRequestError("every element of 'outputs' must be an object")
    name = _text(item, "name", "an output")
    parameters = _object(item, "parameters", f"output {name!r}")
    _refuse_unsupported(parameters, f"output {name!r}")
    binary = parameters.get("binary_data")
    return name, binary if isinstance(binary, bool) else None


def _refuse_unsupported(parameters: dict[str, Any], whose: str) -> None:
    for name in UNSUPPORTED:
        if parameters.get(name) is not None:
            raise InvalidRequestError(f"{whose}: the parameter {name!r} is not supported")


def _list(envelope: dict[str, Any], key: str, *, required: bool) -> list[Any]:
    value = envelope.get(key)
    if value is None and not required:
        return []
    if not isinstance(value, list):
        raise InvalidRequestError(f"{key!r} must be a list" if key in envelope else f"{key!r} is missing")
    return value


def _object(item: dict[str, Any], key: str, whose: str) -> dict[str, Any]:
    value = item.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{key!r} of {whose} must be an object")
    return value


def _text(item: dict[str, Any], key: str, whose: str, default: str | None = None) -> str:
    value = item.get(key, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise InvalidRequestError(f"{key!r} of {whose} must be a string")
    return value
