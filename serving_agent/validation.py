"""Whether a request fits the signature: every refusal is one sentence, the same on both transports. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from serving_agent import tensors
from serving_agent.contract.manifest import Limits, NanPolicy
from serving_agent.contract.signature import DATATYPES, Signature, TensorSpec
from serving_agent.datatypes import Array
from serving_agent.errors import InvalidRequestError, ModelError, TooLargeError
from serving_agent.json_body import Numbers
from serving_agent.messages import FlatData, JsonData, OutputTensor, RawData, WireTensor


def decode_inputs(
    signature: Signature,
    wire: Sequence[WireTensor],
    nan_policy: NanPolicy,
    max_elements: int = Limits().max_elements,
) -> dict[str, Array]:
    """Return the inputs as arrays of the declared type and the sent shape, in the signature's order.

    Raw data may come back as a view of the request's bytes. Raises InvalidRequestError, and TooLargeError
    where a shape holds more than *max_elements* elements; nothing is allocated before both are checked.
    """
    if len(wire) == 1 and _is_the_one(signature, wire[0], max_elements):
        return {wire[0].name: _decode(signature.inputs[0], wire[0], nan_policy)}
    by_name = _by_name(signature, wire)
    for spec in signature.inputs:
        _check_datatype(spec, by_name[spec.name].datatype)
        _check_shape(spec, by_name[spec.name].shape, max_elements)
    check_batch(signature, {name: tensor.shape for name, tensor in by_name.items()})
    return {spec.name: _decode(spec, by_name[spec.name], nan_policy) for spec in signature.inputs}


def _is_the_one(signature: Signature, tensor: WireTensor, max_elements: int) -> bool:
    """Tell whether *tensor* is all that *signature* wants; if not, the long way says what is wrong."""
    if len(signature.inputs) != 1:
        return False
    spec, shape = signature.inputs[0], tensor.shape
    return (
        spec.name == tensor.name
        and spec.datatype == tensor.datatype
        and len(spec.shape) == len(shape)
        and all(size >= 1 and want in (-1, size) for want, size in zip(spec.shape, shape, strict=True))
        and math.prod(shape) <= max_elements
    )


def select_outputs(signature: Signature, names: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Return the wanted outputs in the wanted order, all if *names* is empty. Raises InvalidRequestError."""
    if not names:
        return signature.outputs
    specs = {spec.name: spec for spec in signature.outputs}
    for name in names:
        if name not in specs:
            raise InvalidRequestError(f"unknown output {name!r}; this model returns {_listed(specs)}")
    if len(set(names)) != len(names):
        raise InvalidRequestError("an output is asked for twice")
    return tuple(specs[name] for name in names)


def check_outputs(signature: Signature, outputs: Mapping[str, Array]) -> tuple[OutputTensor, ...]:
    """Return the model's outputs in the signature's order. Raises ModelError where they break it."""
    checked = []
    for spec in signature.outputs:
        if spec.name not in outputs:
            raise ModelError(f"the model returned no output {spec.name!r}")
        array = outputs[spec.name]
        if not _fits(spec.shape, array.shape):
            raise ModelError(
                f"the model returned {spec.name!r} of shape {list(array.shape)}; "
                f"its signature declares {list(spec.shape)}"
            )
        checked.append(OutputTensor(spec.name, spec.datatype, array))
    return tuple(checked)


def check_batch(signature: Signature, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that all batched inputs (first declared size -1) hold the same number of rows."""
    batched = [spec.name for spec in signature.inputs if spec.shape[:1] == (-1,) and shapes[spec.name]]
    rows = {name: shapes[name][0] for name in batched}
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"{name!r} has {count}" for name, count in rows.items())
        raise InvalidRequestError(f"inputs disagree on the number of rows: {listed}")


def _by_name(signature: Signature, wire: Sequence[WireTensor]) -> dict[str, WireTensor]:
    declared = [spec.name for spec in signature.inputs]
    by_name: dict[str, WireTensor] = {}
    for tensor in wire:
        if tensor.name not in declared:
            raise InvalidRequestError(f"unknown input {tensor.name!r}; this model takes {_listed(declared)}")
        if tensor.name in by_name:
            raise InvalidRequestError(f"input {tensor.name!r} is given twice")
        by_name[tensor.name] = tensor
    if missing := [name for name in declared if name not in by_name]:
        raise InvalidRequestError(f"missing input {_listed(missing)}")
    return by_name


def _decode(spec: TensorSpec, tensor: WireTensor, nan_policy: NanPolicy) -> Array:
    array = _flat_array(spec, tensor).reshape(tensor.shape)
    may_hold_nan = not isinstance(tensor.data, JsonData)  # JSON has none
    if nan_policy == "reject" and may_hold_nan and not tensors.is_finite(array, spec.datatype):
        raise InvalidRequestError(
            f"input {spec.name!r} holds NaN or infinite values, which this endpoint refuses"
        )
    return array


def _check_datatype(spec: TensorSpec, datatype: str) -> None:
    if datatype not in DATATYPES:
        raise InvalidRequestError(
            f"input {spec.name!r}: unknown datatype {datatype!r}; it must be one of {', '.join(DATATYPES)}"
        )
    if datatype != spec.datatype:
        raise InvalidRequestError(f"input {spec.name!r} must be {spec.datatype}, not {datatype}")


def _check_shape(spec: TensorSpec, shape: tuple[int, ...], max_elements: int) -> None:
    if shape and min(shape) < 1:
        raise InvalidRequestError(f"input {spec.name!r}: shape {list(shape)} must hold sizes of at least 1")
    if math.prod(shape) > max_elements:
        raise TooLargeError(
            f"input {spec.name!r}: shape {list(shape)} holds more than the limit of {max_elements} elements"
        )
    if not _fits(spec.shape, shape):
        raise InvalidRequestError(
            f"input {spec.name!r} must have shape {list(spec.shape)}, not {list(shape)}"
            + (" (-1 stands for any size)" if -1 in spec.shape else "")
        )


def _fits(declared: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(declared) == len(shape) and all(
        want in (-1, size) for want, size in zip(declared, shape, strict=True)
    )


def _flat_array(spec: TensorSpec, tensor: WireTensor) -> Array:
    count = math.prod(tensor.shape)  # a Python integer: it cannot overflow, and nothing is allocated from it
    if isinstance(tensor.data, RawData):
        return tensors.from_raw(tensor.data.content, count, spec.datatype, spec.name)
    if isinstance(tensor.data, FlatData):
        values: Sequence[object] = list(tensor.data.values)
    elif isinstance(tensor.data.values, Numbers):
        return _from_numbers(spec, tensor.data.values, tensor.shape)
    else:
        values = _json_leaves(spec, tensor.data, tensor.shape)
    _check_count(spec, len(values), tensor.shape)
    return tensors.from_values(values, spec.datatype, spec.name)


def _from_numbers(spec: TensorSpec, numbers: Numbers, shape: tuple[int, ...]) -> Array:
    _check_nesting(spec, numbers.sizes, shape)
    _check_count(spec, numbers.values.size, shape)
    return tensors.from_numbers(numbers.values, spec.datatype, spec.name)


def _json_leaves(spec: TensorSpec, data: JsonData, shape: tuple[int, ...]) -> list[object]:
    if not isinstance(data.values, list):
        raise InvalidRequestError(f"input {spec.name!r}: data must be a list")
    values, nested = tensors.flatten(data.values, spec.name)
    _check_nesting(spec, nested, shape)
    return values


def _check_nesting(spec: TensorSpec, nested: tuple[int, ...], shape: tuple[int, ...]) -> None:
    if len(nested) > 1 and nested != shape:
        raise InvalidRequestError(
            f"input {spec.name!r}: data is nested as {list(nested)}, but its shape is {list(shape)}"
        )


def _check_count(spec: TensorSpec, count: int, shape: tuple[int, ...]) -> None:
    if count != math.prod(shape):
        raise InvalidRequestError(
            f"input {spec.name!r}: {count} elements of data, but shape {list(shape)} holds {math.prod(shape)}"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
