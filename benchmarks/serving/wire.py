"""Requests as bytes and replies as tensors, for each way that tensors travel. Pure.

Formats: Open Inference Protocol v2 (REST, binary tensor extension, gRPC), HTTP/1.1 (RFC 9112), HPACK without
compression (RFC 7541), gRPC over HTTP/2.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import numpy as np
from tritonclient.grpc import service_pb2

from benchmarks.serving.peers.base import MODEL_NAME, Target, Wire
from benchmarks.serving.workloads import INPUT, FloatArray

TITLES: Final[dict[Wire, str]] = {
    "oip_json": "REST, JSON",
    "own_json": "REST, own JSON",
    "oip_binary": "REST, binary tensors",
    "grpc": "gRPC",
}
JSON_LENGTH: Final = "Inference-Header-Content-Length"
GRPC_PATH: Final = "/inference.GRPCInferenceService/ModelInfer"
_STATIC_POST: Final = b"\x83"
_STATIC_HTTP: Final = b"\x86"
_NAME_AUTHORITY: Final = b"\x01"
_NAME_PATH: Final = b"\x04"
_NAME_CONTENT_TYPE: Final = b"\x0f\x10"
_NEW_NAME: Final = b"\x00"


class ReplyError(ValueError):
    """A reply does not hold the tensor it should."""


@dataclass(frozen=True, slots=True)
class Body:
    """A REST request's body and the headers that go with it."""

    content: bytes
    headers: dict[str, str]


def rest_body(wire: Wire, rows: FloatArray) -> Body:
    """Return the request for *rows*, shape (n, *row), FP32.

    Numbers are written as stock clients write them: FP32 values in the digits of a Python float.
    """
    if wire == "own_json":
        return _json_body({INPUT: rows.tolist()})
    if wire == "oip_json":
        return _json_body({"inputs": [_tensor(rows) | {"data": rows.reshape(-1).tolist()}]})
    if wire == "oip_binary":
        return _binary_body(rows)
    raise ValueError(f"{wire} is not a REST form")


def _tensor(rows: FloatArray) -> dict[str, object]:
    return {"name": INPUT, "shape": list(rows.shape), "datatype": "FP32"}


def _json_body(document: object) -> Body:
    return Body(json.dumps(document, separators=(",", ":")).encode(), {"Content-Type": "application/json"})


def _binary_body(rows: FloatArray) -> Body:
    raw = rows.astype("<f4").tobytes()
    head = {
        "inputs": [_tensor(rows) | {"parameters": {"binary_data_size": len(raw)}}],
        "parameters": {"binary_data_output": True},
    }
    encoded = json.dumps(head, separators=(",", ":")).encode()
    headers = {"Content-Type": "application/octet-stream", JSON_LENGTH: str(len(encoded))}
    return Body(encoded + raw, headers)


def http_request(target: Target, body: Body) -> bytes:
    """Return the whole HTTP/1.1 request that posts *body* to *target*."""
    host = "localhost" if target.rest is None or target.rest.startswith("unix:") else target.rest
    lines = [
        f"POST {target.rest_path} HTTP/1.1",
        f"Host: {host}",
        "Accept: */*",
        *(f"{name}: {value}" for name, value in body.headers.items()),
        f"Content-Length: {len(body.content)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body.content


def grpc_message(rows: FloatArray) -> bytes:
    """Return the ModelInferRequest for *rows* with gRPC's five-byte prefix, tensors as raw contents."""
    request = service_pb2.ModelInferRequest(model_name=MODEL_NAME)
    request.inputs.add(name=INPUT, datatype="FP32", shape=rows.shape)
    request.raw_input_contents.append(rows.astype("<f4").tobytes())
    message: bytes = request.SerializeToString()
    return b"\x00" + len(message).to_bytes(4, "big") + message


def grpc_headers(authority: str) -> bytes:
    """Return the HPACK block of a ModelInfer call, nothing compressed, nothing kept in the dynamic table."""
    return b"".join(
        [
            *(_STATIC_POST, _STATIC_HTTP),
            *(_NAME_PATH, _literal(GRPC_PATH)),
            *(_NAME_AUTHORITY, _literal(authority)),
            *(_NAME_CONTENT_TYPE, _literal("application/grpc")),
            *(_NEW_NAME, _literal("te"), _literal("trailers")),
        ]
    )


def _literal(text: str) -> bytes:
    encoded = text.encode()
    if len(encoded) > 126:
        raise ValueError("a header this long needs a multi-byte length")
    return bytes([len(encoded)]) + encoded


def json_array(key: str, reply: bytes) -> bytes:
    """Return the text of the array that follows *key* in a JSON *reply*. Raises ReplyError."""
    at = reply.find(key.encode())
    start = reply.find(b"[", at) if at >= 0 else -1
    if start < 0:
        raise ReplyError(f"no array after {key} in {reply[:200]!r}")
    _, end = json.JSONDecoder().raw_decode(reply[start:].decode())
    return reply[start : start + end]


def floats_of_json(array: bytes) -> FloatArray:
    """Return the numbers of a JSON array, flat or nested, in row-major order. Raises ReplyError."""
    try:
        return np.asarray(json.loads(array), np.float32).reshape(-1)
    except (ValueError, TypeError) as error:
        raise ReplyError(f"not an array of numbers: {array[:200]!r}") from error


def floats_of_raw(raw: bytes) -> FloatArray:
    """Return the little-endian FP32 values in *raw*. Raises ReplyError for a broken length."""
    if len(raw) % 4:
        raise ReplyError(f"{len(raw)} bytes are no whole number of FP32 values")
    return np.frombuffer(raw, "<f4").astype(np.float32)


def tensor_bytes(wire: Wire, target: Target, reply: bytes, size: int) -> bytes:
    """Return the part of *reply* that is the output tensor.

    reply: a REST body or a gRPC message with its prefix. size: bytes of the raw tensor; where it travels raw,
    nothing follows it (in a ModelInferResponse, raw contents come last).
    """
    if wire in ("oip_json", "own_json"):
        return json_array(target.json_key, reply)
    if len(reply) < size:
        raise ReplyError(f"{len(reply)} bytes are too few: {reply[:200]!r}")
    return reply[-size:]


def floats(wire: Wire, part: bytes) -> FloatArray:
    """Return the numbers in what `tensor_bytes` found. Raises ReplyError."""
    return floats_of_json(part) if wire in ("oip_json", "own_json") else floats_of_raw(part)
