"""A run's input from what people give: each becomes tensors in the protocol's raw form. Pure.

Types must be those of the signature; shapes need not be: the run then shows where a wrong one is refused.
Every refusal names the input and what was expected.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from control_plane.debugging import pictures
from control_plane.domain import golden
from control_plane.errors import InvalidInputError, TooLargeError
from serving_agent import predict_codec, tensors
from serving_agent.contract.capture import CapturedTensor
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.datatypes import FLOATS, NUMPY_TYPE
from serving_agent.errors import AgentError
from serving_agent.messages import JsonData, WireTensor

MAX_BYTES: Final = 64 * 1024**2
"""Data of all inputs of a run."""
MAX_TEXTS: Final = 1_000_000
"""Of one input: each is an object of its own while it is read."""
MAX_NPY_HEADER: Final = 10_000
MAX_SIZE: Final = 65_536
"""Of one dimension that is chosen for a random input."""
MAX_DIMENSIONS: Final = 32
WORDS: Final = (b"signal", b"box", b"a quiet day", b"the answer is 42", b"ships at sea", b"caf\xc3\xa9")
"""Random texts."""
SPELLED: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""Words for what JSON has no numbers for."""

LEFT_OUT: Final = {
    "redacted": (
        "the endpoint's `sampling.redact` names it",
        "Take it out of there and choose a later request, or give the input as JSON.",
    ),
    "too_large": (
        "the request's inputs are too large to be kept",
        "Choose a request with fewer rows, or give the input as a file.",
    ),
    "dropped": ("it was dropped for newer requests", "Choose a newer one."),
}
"""Why a kept request lacks data, and what to do."""

Array = npt.NDArray[Any]
Tensors = tuple[CapturedTensor, ...]


def of_json(value: Any, signature: Signature) -> Tensors:
    """What `POST /predict` takes as `input`; NaN and infinities may be written as words."""
    try:
        wire = predict_codec.request_of(value, "", signature).inputs
    except AgentError as error:
        raise InvalidInputError(str(error), next_step=_wants(signature)) from error
    return _of_wire(wire, signature)


def of_row(values: Mapping[str, Any], signature: Signature) -> Tensors:
    """One row by input name, without the batch dimension: an example's inputs."""
    return _of_wire(golden.row(values, signature.inputs), signature)


def of_npy(files: Mapping[str, bytes], signature: Signature) -> Tensors:
    """`.npy` files by input name; the empty name stands for the only input."""
    named = {name or _only(signature, lambda _: True, "an array"): data for name, data in files.items()}
    _check_names(list(named), signature)
    _check_bytes(sum(map(len, named.values())))
    return tuple(_from_array(spec, _npy(named[spec.name], spec)) for spec in signature.inputs)


def of_image(content: bytes, name: str, signature: Signature) -> Tensors:
    """A PNG or JPEG, scaled to the input's shape."""
    chosen = name or _only(signature, pictures.fits, "a picture")
    _check_names([chosen], signature)
    spec = next(each for each in signature.inputs if each.name == chosen)
    if not pictures.fits(spec):
        raise InvalidInputError(
            f"input {spec.name!r} takes no picture: it is {spec}",
            next_step="A picture needs a numeric input of shape [-1, C, H, W] or [-1, H, W, C].",
        )
    return (_from_array(spec, pictures.decode(content, spec)),)


def of_text(text: str, name: str, signature: Signature) -> Tensors:
    """A text for an input of type BYTES."""
    chosen = name or _only(signature, _is_text, "a text")
    _check_names([chosen], signature)
    spec = next(each for each in signature.inputs if each.name == chosen)
    if not _is_text(spec):
        raise InvalidInputError(f"input {spec.name!r} takes no text: it is {spec}")
    encoded = text.encode(errors="replace")
    shape = [max(1, size) for size in spec.shape]
    _check_size(spec, math.prod(shape), len(encoded))
    array = np.full(shape, encoded, dtype=object)
    return (_captured(spec, array),)


def random(seed: int, rows: int, open_size: int, signature: Signature) -> Tensors:
    """Standard normal floats, zeros and ones, and a few words, in the signature's shapes.

    rows: size of the first dimension where it is open; open_size: of the others.
    """
    for what, number, most in (
        ("seed", seed, 2**63),
        ("rows", rows, MAX_SIZE),
        ("size", open_size, MAX_SIZE),
    ):
        if not (0 if what == "seed" else 1) <= number <= most:
            raise InvalidInputError(f"the {what} of a random input must be at most {most}, and not negative")
    generator = np.random.default_rng(seed)
    shapes = {
        spec.name: tuple(
            (rows if axis == 0 else open_size) if size == -1 else size for axis, size in enumerate(spec.shape)
        )
        for spec in signature.inputs
    }
    for spec in signature.inputs:
        _check_size(spec, math.prod(shapes[spec.name]), max(map(len, WORDS)))
    return tuple(_captured(spec, _made_up(spec, shapes[spec.name], generator)) for spec in signature.inputs)


def are_whole(given: Sequence[CapturedTensor]) -> bool:
    """Whether an agent has the data of all *given*, on this page or where it is asked for."""
    return bool(given) and all(each.data is not None or each.left_out == "page" for each in given)


def of_captured(given: Sequence[CapturedTensor], signature: Signature) -> Tensors:
    """A kept request, in the signature's order."""
    _check_names([tensor.name for tensor in given], signature)
    by_name = {tensor.name: tensor for tensor in given}
    for spec in signature.inputs:
        tensor = by_name[spec.name]
        if tensor.data is None:
            why, next_step = LEFT_OUT.get(tensor.left_out, LEFT_OUT["dropped"])
            raise InvalidInputError(
                f"the data of input {spec.name!r} was not kept: {why}", next_step=next_step
            )
        _check_datatype(spec, tensor.datatype)
    _check_bytes(sum(len(tensor.data or b"") for tensor in given))
    return tuple(by_name[spec.name] for spec in signature.inputs)


def _of_wire(wire: Sequence[WireTensor], signature: Signature) -> Tensors:
    _check_names([tensor.name for tensor in wire], signature)
    by_name = {tensor.name: tensor for tensor in wire}
    try:
        return tuple(_from_lists(spec, by_name[spec.name]) for spec in signature.inputs)
    except AgentError as error:
        raise InvalidInputError(str(error), next_step=_wants(signature)) from error


def _from_lists(spec: TensorSpec, tensor: WireTensor) -> CapturedTensor:
    if not isinstance(tensor.data, JsonData) or not isinstance(tensor.data.values, list):
        raise InvalidInputError(f"input {spec.name!r}: data must be a list, for {spec}")
    flat, shape = tensors.flatten(tensor.data.values, spec.name)
    if len(shape) > MAX_DIMENSIONS:
        raise InvalidInputError(
            f"input {spec.name!r} has {len(shape)} dimensions, and may have {MAX_DIMENSIONS} at most: {spec}"
        )
    if spec.datatype in FLOATS:
        flat = [SPELLED.get(each, each) if isinstance(each, str) else each for each in flat]
    return _captured(spec, tensors.from_values(flat, spec.datatype, spec.name).reshape(shape))


def _from_array(spec: TensorSpec, array: Array) -> CapturedTensor:
    """An array of any number type, as far as its values fit; one row may come without its dimension."""
    if spec.shape[:1] == (-1,) and array.ndim == len(spec.shape) - 1:
        array = array[np.newaxis]
    flat = np.ascontiguousarray(array).reshape(-1)
    _check_size(spec, flat.size, flat.itemsize)
    try:
        return _captured(spec, _cast(spec, flat).reshape(array.shape))
    except AgentError as error:
        raise InvalidInputError(str(error)) from error


def _cast(spec: TensorSpec, flat: Array) -> Array:
    kind = flat.dtype.kind
    if spec.datatype == "BYTES":
        if kind not in "US":
            raise InvalidInputError(f"input {spec.name!r} holds {flat.dtype}, but texts are expected: {spec}")
        return tensors.from_values(flat.tolist(), "BYTES", spec.name)
    fits = kind == "b" if spec.datatype == "BOOL" else kind in ("iuf" if spec.datatype in FLOATS else "iu")
    if not fits:
        raise InvalidInputError(
            f"input {spec.name!r} holds {flat.dtype}, but {spec.datatype} is expected: {spec}"
        )
    if not flat.size or kind == "b":
        return flat.astype(NUMPY_TYPE[spec.datatype])
    native = flat.astype(flat.dtype.newbyteorder("="), copy=False)
    if spec.datatype == "BF16":
        native = native.astype(np.float64)  # it is held as float32: those that come so are rounded too
    return tensors.from_numbers(native, spec.datatype, spec.name)


def _npy(content: bytes, spec: TensorSpec) -> Array:
    """The array in a `.npy` file. Nothing in it is run, and nothing is allocated beyond its own size."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read:
            raise ValueError(f"its format has version {version[0]}.{version[1]}")
        shape, fortran, dtype = read[version](file, max_header_size=MAX_NPY_HEADER)
        if dtype.hasobject or dtype.names or dtype.subdtype:
            raise ValueError(f"it holds {dtype}, and not plain numbers or texts")
        if len(shape) > MAX_DIMENSIONS or any(size < 0 for size in shape):
            raise ValueError("its shape is malformed")
        if dtype.itemsize * math.prod(shape) != len(content) - file.tell():
            raise ValueError("it is cut, or other data follows it")
        flat = (
            np.frombuffer(content, dtype=dtype, offset=file.tell()) if dtype.itemsize else np.empty(0, dtype)
        )
        return flat.reshape(shape, order="F" if fortran else "C")
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise InvalidInputError(
            f"the .npy file for input {spec.name!r} cannot be read: {error}",
            next_step=f"Save a plain array with numpy.save; {spec} is expected.",
        ) from error


def _captured(spec: TensorSpec, array: Array) -> CapturedTensor:
    _check_size(spec, array.size)
    data = bytes(tensors.to_raw(array, spec.datatype))
    _check_bytes(len(data))
    return CapturedTensor(name=spec.name, datatype=spec.datatype, shape=tuple(array.shape), data=data)


def _made_up(spec: TensorSpec, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    if spec.datatype == "BYTES":
        chosen = generator.integers(0, len(WORDS), shape)
        words = np.empty(chosen.size, dtype=object)
        words[:] = [WORDS[at] for at in chosen.reshape(-1)]
        return words.reshape(shape)
    if spec.datatype in FLOATS:
        return generator.standard_normal(shape).astype(NUMPY_TYPE[spec.datatype])
    return generator.integers(0, 2, shape).astype(NUMPY_TYPE[spec.datatype])


def _only(signature: Signature, fits: Callable[[TensorSpec], bool], what: str) -> str:
    """Name of the only input that *fits*."""
    found = [spec.name for spec in signature.inputs if fits(spec)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(str(spec) for spec in signature.inputs)
    if not found:
        raise InvalidInputError(f"no input takes {what}: this version takes {names}")
    raise InvalidInputError(f"{what} fits several inputs; say which one: {names}")


def _check_names(given: Sequence[str], signature: Signature) -> None:
    known = [spec.name for spec in signature.inputs]
    unknown = [name for name in given if name not in known]
    missing = [name for name in known if name not in given]
    if unknown:
        raise InvalidInputError(f"unknown input {unknown[0][:80]!r}", next_step=_wants(signature))
    if missing:
        raise InvalidInputError(f"input {missing[0]!r} is missing", next_step=_wants(signature))


def _check_datatype(spec: TensorSpec, datatype: str) -> None:
    if datatype != spec.datatype:
        raise InvalidInputError(f"input {spec.name!r} must be {spec.datatype}, not {datatype[:20]}")


def _check_size(spec: TensorSpec, count: int, text_bytes: int = 0) -> None:
    """Refuse *count* elements that would be too many before they are made. text_bytes: of the longest."""
    if spec.datatype != "BYTES":
        return _check_bytes(count * NUMPY_TYPE[spec.datatype].itemsize)
    if count > MAX_TEXTS:
        raise TooLargeError(f"input {spec.name!r} of a run may have {MAX_TEXTS} texts at most, not {count}")
    return _check_bytes(count * (text_bytes + tensors.SIZE.size))


def _check_bytes(count: int) -> None:
    if count > MAX_BYTES:
        raise TooLargeError(f"the inputs of a run may have {MAX_BYTES // 1024**2} MiB at most")


def _is_text(spec: TensorSpec) -> bool:
    return spec.datatype == "BYTES"


def _wants(signature: Signature) -> str:
    return f"This version takes {', '.join(str(spec) for spec in signature.inputs)}."
