"""Requests and answers of the Open Inference Protocol as gates write and read them. Pure.

Outputs are asked for in binary form: JSON has no NaN, and a gate must see one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from control_plane.domain.golden import row
from serving_agent import tensors
from serving_agent.contract.signature import DATATYPES, Signature
from serving_agent.errors import InvalidRequestError
from serving_agent.messages import JsonData, OutputTensor

MAX_MESSAGE_CHARS: Final = 300

Row = Mapping[str, Any]
"""One input by tensor name: nested lists without the batch dimension."""


class UnreadableError(Exception):
    """The answer is not of the protocol."""


class _Described(msgspec.Struct):
    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, Any] = {}


class _Head(msgspec.Struct):
    outputs: tuple[_Described, ...]


def request(rows: Sequence[Row], signature: Signature) -> bytes:
    """One request with *rows*, which have the same names and shapes; at least one."""
    inputs = []
    for tensor in row(rows[0], signature.inputs):
        values = tensor.data.values if isinstance(tensor.data, JsonData) else []
        data = [each[tensor.name] for each in rows] if len(rows) > 1 else values
        shape = (len(rows), *tensor.shape[1:])
        inputs.append({"name": tensor.name, "datatype": tensor.datatype, "shape": shape, "data": data})
    return msgspec.json.encode({"inputs": inputs, "parameters": {"binary_data_output": True}})


def outputs(body: bytes, json_length: str | None) -> tuple[OutputTensor, ...]:
    """The outputs in an answer with status 200. Raises UnreadableError.

    json_length: the header that tells the size of the JSON part, where binary tensors follow it.
    """
    try:
        split = len(body) if json_length is None else int(json_length)
        head = msgspec.json.decode(body[:split], type=_Head)
        return _tensors(head.outputs, memoryview(body)[split:])
    except (ValueError, msgspec.MsgspecError, InvalidRequestError, KeyError, TypeError) as error:
        raise UnreadableError(f"its answer cannot be read: {error}") from error


def message(body: bytes) -> str:
    """The sentence of an error answer."""
    try:
        said = msgspec.json.decode(body)["error"]
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        said = body.decode(errors="replace")
    return str(said)[:MAX_MESSAGE_CHARS]


def by_row(reply: Sequence[OutputTensor], rows: int) -> list[tuple[OutputTensor, ...]] | None:
    """*reply* to a request of so many rows, row by row; None where an output has not one row for each."""
    if any(output.array.shape[:1] != (rows,) for output in reply):
        return None
    return [
        tuple(OutputTensor(output.name, output.datatype, output.array[at : at + 1]) for output in reply)
        for at in range(rows)
    ]


def _tensors(described: Sequence[_Described], tail: memoryview) -> tuple[OutputTensor, ...]:
    found, offset = [], 0
    for each in described:
        if each.datatype not in DATATYPES or min(each.shape, default=0) < 0:
            raise ValueError(f"output {each.name!r} is no tensor")
        size = int(each.parameters["binary_data_size"])
        raw = tail[offset : offset + size]
        array = tensors.from_raw(raw, math.prod(each.shape), each.datatype, each.name)
        found.append(OutputTensor(each.name, each.datatype, array.reshape(each.shape)))
        offset += size
    return tuple(found)
