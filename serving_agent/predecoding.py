"""Large tensors made arrays ahead of validation, so that it need not happen on the I/O loop. Pure.

What this hands on, validation takes over as it is; what is wrong with the data is told in the same sentences.
"""

from __future__ import annotations

import math
from typing import Final

from serving_agent import tensors
from serving_agent.datatypes import NUMPY_TYPE, Array
from serving_agent.json_body import Numbers
from serving_agent.messages import FlatData, JsonData, RawData, TensorData, WireTensor

LARGE: Final = 1024 * 1024
"""Bytes of JSON, texts or protobuf values beyond which reading them would hold up the I/O loop."""
MOST_UNPACKED: Final = 1032
"""Most bytes that one byte of a zlib stream can stand for."""


def is_slow(body: bytes | bytearray, json_size: int, *, is_packed: bool) -> bool:
    """Tell whether reading *body*, with JSON in its first *json_size* bytes, takes long.

    Binary numbers take no time; texts do, which JSON names as BYTES or in a string with escapes.
    """
    if is_packed:
        return len(body) * MOST_UNPACKED >= LARGE
    if len(body) < LARGE or json_size >= LARGE:
        return json_size >= LARGE
    return body.find(b"BYTES", 0, json_size) >= 0 or body.find(b"\\", 0, json_size) >= 0


def with_arrays(inputs: tuple[WireTensor, ...]) -> tuple[WireTensor, ...]:
    """Return *inputs* with their values in arrays. Raises InvalidRequestError where they do not fit."""
    return tuple([_with_array(tensor) for tensor in inputs])


def _with_array(tensor: WireTensor) -> WireTensor:
    if tensor.datatype not in NUMPY_TYPE:  # validation refuses it
        return tensor
    return WireTensor(tensor.name, tensor.datatype, tensor.shape, _data(tensor))


def _data(tensor: WireTensor) -> TensorData:
    data, datatype, name = tensor.data, tensor.datatype, tensor.name
    if isinstance(data, FlatData) and data.values:
        array = tensors.from_values(list(data.values), datatype, name)
        # not as JSON, which cannot hold the NaN that these values may
        return _texts(array) if datatype == "BYTES" else RawData(tensors.to_raw(array, datatype))
    if isinstance(data, RawData) and datatype == "BYTES":
        return _texts(tensors.from_raw(data.content, math.prod(tensor.shape), datatype, name))
    if isinstance(data, JsonData) and isinstance(data.values, list):
        values, sizes = tensors.flatten(data.values, name)
        return JsonData(Numbers(tensors.from_values(values, datatype, name), sizes))
    return data


def _texts(array: Array) -> JsonData:
    return JsonData(Numbers(array, array.shape))
