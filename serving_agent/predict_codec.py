"""Bodies of the plain `POST /predict`: `{"input": …}` in, `{"predictions": …}` out. Pure.

`input` is, for a model with one input, its data as nested lists (one row may come without the row dimension),
or for any model an object of data by input name. Types come from the signature, shapes from the nesting.
`predictions` is the data of the only output, or an object of data by output name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from serving_agent import json_body
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.errors import InvalidRequestError
from serving_agent.json_body import Numbers
from serving_agent.messages import InferReply, InferRequest, JsonData, WireTensor
from serving_agent.rest_codec import json_values


def decode(body: bytes | bytearray, model: str, signature: Signature) -> InferRequest:
    """Return the request in *body*. Raises InvalidRequestError."""
    envelope = json_body.parse(body)
    if "input" not in envelope:
        raise InvalidRequestError("'input' is missing; send {\"input\": …}")
    if unknown := sorted(set(envelope) - {"input"}):
        raise InvalidRequestError(f'unknown key {unknown[0]!r}; send {{"input": …}}')
    return request_of(envelope["input"], model, signature)


def request_of(value: Any, model: str, signature: Signature) -> InferRequest:
    """Return the request with *value* as its `input`. Raises InvalidRequestError."""
    named = _by_name(value, signature)
    specs = {spec.name: spec for spec in signature.inputs}
    return InferRequest(
        model=model,
        version="",
        inputs=tuple(_tensor(name, value, specs.get(name)) for name, value in named.items()),
    )


def encode(reply: InferReply) -> bytes:
    """Return the body of *reply*. Raises ModelError where an output cannot be written as JSON."""
    values = {output.name: json_values(output) for output in reply.outputs}
    predictions = next(iter(values.values())) if len(values) == 1 else values
    return orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)


def _by_name(value: Any, signature: Signature) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if len(signature.inputs) != 1:
        names = ", ".join(repr(spec.name) for spec in signature.inputs)
        raise InvalidRequestError(f"this model has several inputs; 'input' must be an object with {names}")
    return {signature.inputs[0].name: value}


def _tensor(name: str, value: Any, spec: TensorSpec | None) -> WireTensor:
    if spec is None:  # an unknown name: validation refuses it, naming the known ones
        return WireTensor(name, "", (), JsonData(value))
    rows = with_row(value) if _lacks_rows(value, spec) else value
    if not isinstance(rows, list | Numbers):
        raise InvalidRequestError(f"input {name!r}: data must be a list")
    return WireTensor(name, spec.datatype, nesting(rows), JsonData(rows))


def with_row(value: Any) -> Any:
    """Return one row's data as the data of a batch of one."""
    return Numbers(value.values, (1, *value.sizes)) if isinstance(value, Numbers) else [value]


def _lacks_rows(value: Any, spec: TensorSpec) -> bool:
    return spec.shape[:1] == (-1,) and len(nesting(value)) == len(spec.shape) - 1


def nesting(value: Any) -> tuple[int, ...]:
    """Return the sizes of nested lists along their first elements; validation finds the ragged ones."""
    if isinstance(value, Numbers):
        return value.sizes
    sizes: list[int] = []
    while isinstance(value, Sequence) and not isinstance(value, str):
        sizes.append(len(value))
        value = value[0] if value else None
    return tuple(sizes)
