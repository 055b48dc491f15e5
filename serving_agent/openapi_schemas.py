"""JSON Schemas (draft 2020-12) of the bodies that `openapi` describes, from a model's signature. Pure."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from serving_agent.contract.signature import DATATYPES, Signature, TensorSpec
from serving_agent.datatypes import FLOATS, NUMPY_TYPE

Schema = dict[str, Any]

LARGEST_BF16: Final = 3.3895313892515355e38
"""Largest finite BF16: the upper 16 bits of a float32 with the exponent 127 and every other bit set."""
MAX_EXAMPLE_ELEMENTS: Final = 256
"""Requests with more elements get no example."""
SIZE: Final[Schema] = {"type": "integer", "minimum": 1}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
TEXT: Final[Schema] = {"type": "string"}
PARAMETERS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": ["boolean", "integer", "number", "string"]},
}

ERROR: Final[Schema] = {"type": "object", "properties": {"error": TEXT}, "required": ["error"]}
SERVER_METADATA: Final[Schema] = {
    "type": "object",
    "properties": {"name": TEXT, "version": TEXT, "extensions": {"type": "array", "items": TEXT}},
    "required": ["name", "version", "extensions"],
}
READINESS: Final[Schema] = {
    "type": "object",
    "properties": {"ready": {"type": "boolean"}},
    "required": ["ready"],
}
LIVENESS: Final[Schema] = {
    "type": "object",
    "properties": {"live": {"type": "boolean"}},
    "required": ["live"],
}
REPOSITORY: Final[Schema] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": TEXT,
            "version": TEXT,
            "state": {"enum": ["READY", "UNAVAILABLE"]},
            "reason": TEXT,
        },
        "required": ["name", "version", "state"],
    },
}
REPOSITORY_REQUEST: Final[Schema] = {"type": "object", "properties": {"ready": {"type": "boolean"}}}

_METADATA_TENSOR: Final[Schema] = {
    "type": "object",
    "properties": {
        "name": TEXT,
        "datatype": {"enum": list(DATATYPES)},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}},
    },
    "required": ["name", "datatype", "shape"],
}
MODEL_METADATA: Final[Schema] = {
    "type": "object",
    "properties": {
        "name": TEXT,
        "versions": {"type": "array", "items": TEXT},
        "platform": TEXT,
        "inputs": {"type": "array", "items": _METADATA_TENSOR},
        "outputs": {"type": "array", "items": _METADATA_TENSOR},
    },
    "required": ["name", "versions", "platform", "inputs", "outputs"],
}

_CONFIG_TENSOR: Final[Schema] = {
    "type": "object",
    "properties": {
        "name": TEXT,
        "data_type": {"type": "string", "pattern": "^TYPE_"},
        "dims": {"type": "array", "items": {"type": "integer", "minimum": -1}},
    },
    "required": ["name", "data_type", "dims"],
}
MODEL_CONFIG: Final[Schema] = {
    "type": "object",
    "properties": {
        "name": TEXT,
        "platform": TEXT,
        "max_batch_size": COUNT,
        "input": {"type": "array", "items": _CONFIG_TENSOR},
        "output": {"type": "array", "items": _CONFIG_TENSOR},
    },
    "required": ["name", "platform", "max_batch_size", "input", "output"],
}

_DURATION: Final[Schema] = {
    "type": "object",
    "properties": {"count": COUNT, "ns": COUNT},
    "required": ["count", "ns"],
}
_STAGES: Final = ("compute_input", "compute_infer", "compute_output")
_DURATIONS: Final = ("success", "fail", "queue", *_STAGES, "cache_hit", "cache_miss")
STATISTICS: Final[Schema] = {
    "type": "object",
    "properties": {
        "model_stats": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": TEXT,
                    "version": TEXT,
                    "last_inference": COUNT | {"description": "milliseconds since the epoch; 0 for never"},
                    "inference_count": COUNT | {"description": "rows"},
                    "execution_count": COUNT | {"description": "batches"},
                    "inference_stats": {
                        "type": "object",
                        "properties": dict.fromkeys(_DURATIONS, _DURATION),
                        "required": list(_DURATIONS),
                    },
                    "batch_stats": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"batch_size": SIZE, **dict.fromkeys(_STAGES, _DURATION)},
                            "required": ["batch_size", *_STAGES],
                        },
                    },
                    "memory_usage": {"type": "array", "items": {"type": "object"}},
                    "response_stats": {"type": "object"},
                },
                "required": ["name", "version", "inference_stats", "batch_stats"],
            },
        }
    },
    "required": ["model_stats"],
}


def infer_request(signature: Signature) -> Schema:
    """Return the schema of the Open Inference Protocol's request for a model with *signature*."""
    return {
        "type": "object",
        "properties": {
            "id": TEXT,
            "parameters": PARAMETERS,
            "inputs": _all_of_them([_input(spec) for spec in signature.inputs]),
            "outputs": {
                "type": "array",
                "description": "the wanted outputs in the wanted order; all of them if left out",
                "uniqueItems": True,
                "maxItems": len(signature.outputs),
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"enum": [spec.name for spec in signature.outputs]},
                        "parameters": {"type": "object"},
                    },
                    "required": ["name"],
                },
            },
        },
        "required": ["inputs"],
    }


def infer_response(signature: Signature) -> Schema:
    """Return the schema of the reply in JSON form."""
    return {
        "type": "object",
        "properties": {
            "model_name": TEXT,
            "model_version": TEXT,
            "id": TEXT,
            "parameters": {"type": "object"},
            "outputs": {
                "type": "array",
                "minItems": 1,
                "items": {"anyOf": [_output(spec) for spec in signature.outputs]},
            },
        },
        "required": ["model_name", "model_version", "outputs"],
    }


def predict_request(signature: Signature) -> Schema:
    """Return the schema of `POST /predict`'s request."""
    by_name = {
        "type": "object",
        "properties": {spec.name: _rows(spec) for spec in signature.inputs},
        "required": [spec.name for spec in signature.inputs],
        "additionalProperties": False,
    }
    forms = [by_name, *(_rows(spec) for spec in signature.inputs if len(signature.inputs) == 1)]
    return {
        "type": "object",
        "properties": {"input": {"anyOf": forms}},
        "required": ["input"],
        "additionalProperties": False,
    }


def predict_response(signature: Signature) -> Schema:
    """Return the schema of `POST /predict`'s reply."""
    values = {spec.name: _nested(spec) for spec in signature.outputs}
    several = {"type": "object", "properties": values, "required": list(values)}
    return {
        "type": "object",
        "properties": {"predictions": several if len(values) > 1 else next(iter(values.values()), several)},
        "required": ["predictions"],
    }


def infer_example(signature: Signature) -> Schema | None:
    """Return a request that the schema admits, one row of zeros; None where it would be long."""
    shapes = {spec.name: tuple(max(1, size) for size in spec.shape) for spec in signature.inputs}
    if sum(map(math.prod, shapes.values())) > MAX_EXAMPLE_ELEMENTS:
        return None
    return {
        "inputs": [
            {
                "name": spec.name,
                "shape": list(shapes[spec.name]),
                "datatype": spec.datatype,
                "data": [_zero(spec.datatype)] * math.prod(shapes[spec.name]),
            }
            for spec in signature.inputs
        ]
    }


def element(datatype: str) -> Schema:
    """Return the schema of one element: its JSON type and what the datatype can hold."""
    if datatype == "BYTES":
        return TEXT
    if datatype == "BOOL":
        return {"type": "boolean"}
    if datatype in FLOATS:
        largest = LARGEST_BF16 if datatype == "BF16" else float(np.finfo(NUMPY_TYPE[datatype]).max)
        return {"type": "number", "minimum": -largest, "maximum": largest}
    bounds = np.iinfo(NUMPY_TYPE[datatype])
    return {"type": "integer", "minimum": int(bounds.min), "maximum": int(bounds.max)}


def _zero(datatype: str) -> Any:
    if datatype == "BYTES":
        return ""
    return False if datatype == "BOOL" else 0


def _all_of_them(items: list[Schema]) -> Schema:
    """Return the schema of a list that holds each of the named *items* once, in any order."""
    schema: Schema = {"type": "array", "minItems": len(items), "maxItems": len(items)}
    if len(items) == 1:
        return schema | {"items": items[0]}
    return schema | {"items": {"anyOf": items}, "allOf": [{"contains": item} for item in items]}


def _input(spec: TensorSpec) -> Schema:
    return {
        "type": "object",
        "properties": {**_described(spec), "parameters": {"type": "object"}, "data": _data(spec)},
        "required": ["name", "shape", "datatype", "data"],
    }


def _output(spec: TensorSpec) -> Schema:
    return {
        "type": "object",
        "properties": {**_described(spec), "parameters": {"type": "object"}, "data": _data(spec)},
        "required": ["name", "shape", "datatype"],
    }


def _described(spec: TensorSpec) -> Schema:
    return {"name": {"const": spec.name}, "datatype": {"const": spec.datatype}, "shape": _shape(spec)}


def _shape(spec: TensorSpec) -> Schema:
    if -1 not in spec.shape:
        return {"const": list(spec.shape)}
    rank = len(spec.shape)
    about = f"{list(spec.shape)}, where -1 stands for any size"
    return {"type": "array", "items": SIZE, "minItems": rank, "maxItems": rank, "description": about}


def _data(spec: TensorSpec) -> Schema:
    """Return the schema of a tensor's data, flat or nested."""
    flat: Schema = {"type": "array", "items": element(spec.datatype)}
    if -1 not in spec.shape:
        flat |= _sized(math.prod(spec.shape))
    return {"anyOf": [flat, _nested(spec)]} if len(spec.shape) > 1 else flat


def _nested(spec: TensorSpec) -> Schema:
    schema = element(spec.datatype)
    for size in reversed(spec.shape):
        schema = {"type": "array", "items": schema, **_sized(size)}
    return schema


def _rows(spec: TensorSpec) -> Schema:
    """Return the schema of an input's data in `/predict`, where one row may come without its dimension."""
    nested = _nested(spec)
    return {"anyOf": [nested, nested["items"]]} if spec.shape[:1] == (-1,) else nested


def _sized(size: int) -> Schema:
    return {"minItems": 1} if size == -1 else {"minItems": size, "maxItems": size}
