"""Inference requests in tritonclient's terms, for all its flavours."""

from __future__ import annotations

from typing import Any

from benchmarks.conformance import checks, models
from benchmarks.conformance.clients import Session
from serving_agent.contract.signature import DATATYPES

Json = checks.Json


def add_input(session: Session, name: str, datatype: str, array: models.Array, *, binary: bool = True) -> Any:
    """Return an input tensor of *session*'s client; over REST as raw bytes or as JSON."""
    tensor = session.module.InferInput(name, list(array.shape), datatype)
    if session.protocol == "http":
        tensor.set_data_from_numpy(array, binary_data=binary)
    else:
        tensor.set_data_from_numpy(array)
    return tensor


def wanted(session: Session, name: str, *, binary: bool = True) -> Any:
    """Return a wish for output *name*; over REST as raw bytes or as JSON."""
    if session.protocol == "http":
        return session.module.InferRequestedOutput(name, binary_data=binary)
    return session.module.InferRequestedOutput(name)


def types_inputs(session: Session, json_datatype: str = "") -> list[Any]:
    """Return all inputs of `types`, raw but for the one of *json_datatype*."""
    return [
        add_input(
            session,
            models.input_name(datatype),
            datatype,
            models.values(datatype),
            binary=datatype != json_datatype,
        )
        for datatype in DATATYPES
    ]


def image_input(session: Session, rows: int = 4, *, binary: bool = True) -> Any:
    """Return the input of `digits` with the first *rows* images."""
    return add_input(session, "image", "FP32", models.images()[:rows], binary=binary)


async def classify(session: Session, **options: Any) -> Json:
    """Ask `digits` for all its outputs in its client's default way."""
    return answer(await session.ask("infer", models.DIGITS, [image_input(session)], **options))


def answer(result: Any, name: str = "logits") -> Json:
    """Return what was seen of one output of *result*."""
    array = result.as_numpy(name)
    return {"missing": name} if array is None else checks.tensor(array)


def logits(rows: int = 4) -> Json:
    """Return what `digits` must answer to the first *rows* images."""
    return checks.tensor(models.logits()[:rows])


def plain(message: Any) -> Json:
    """Return a protobuf message or a JSON value as JSON."""
    if hasattr(message, "DESCRIPTOR"):
        from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]  # no stubs

        converted: Json = MessageToDict(message, preserving_proto_field_name=True)
        return converted
    return message
