"""Messages of the gRPC service to the agent's own and back. Pure."""

from __future__ import annotations

from typing import Any, Final

from serving_agent import tensors
from serving_agent.contract import proto
from serving_agent.errors import InvalidRequestError
from serving_agent.messages import FlatData, InferReply, InferRequest, RawData, TensorData, WireTensor

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


def decode(message: Any, timeout_s: float | None) -> InferRequest:
    """Return the request in *message*; its client waits *timeout_s* more. Raises InvalidRequestError."""
    if not message.inputs:
        raise InvalidRequestError("'inputs' must not be empty")
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise InvalidRequestError(
            f"raw_input_contents holds {len(raw)} tensors for {len(message.inputs)} inputs; it is all or none"
        )
    for tensor in (*message.inputs, *message.outputs):
        _refuse_unsupported(tensor)
    return InferRequest(
        model=message.model_name,
        version=message.model_version,
        inputs=tuple(
            _input(tensor, raw[index] if raw else None) for index, tensor in enumerate(message.inputs)
        ),
        outputs=tuple(output.name for output in message.outputs),
        id=message.id,
        timeout_s=timeout_s,
    )


def encode(reply: InferReply, model: str, version: str) -> Any:
    """Return a ModelInferResponse with raw contents."""
    response = proto.message_class("ModelInferResponse")(model_name=model, model_version=version, id=reply.id)
    for output in reply.outputs:
        response.outputs.add(name=output.name, datatype=output.datatype, shape=output.array.shape)
        response.raw_output_contents.append(tensors.to_raw(output.array, output.datatype))
    return response


def _input(tensor: Any, raw: bytes | None) -> WireTensor:
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


def _refuse_unsupported(tensor: Any) -> None:
    for name in UNSUPPORTED:
        if name in tensor.parameters:
            raise InvalidRequestError(f"{tensor.name!r}: the parameter {name!r} is not supported")
