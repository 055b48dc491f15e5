"""One request and its reply, with the values checked: the verification before and after each measurement."""

from __future__ import annotations

from contextlib import closing
from http.client import HTTPResponse
from socket import AF_INET, AF_UNIX, SOCK_STREAM, socket
from typing import Final

import grpc
import numpy as np

from benchmarks.serving import wire as wires
from benchmarks.serving.peers.base import Target, Wire
from benchmarks.serving.wire import ReplyError
from benchmarks.serving.workloads import FloatArray, Workload

TIMEOUT_S: Final = 60.0
GRPC_PREFIX_BYTES: Final = 5
_LARGEST_MESSAGE: Final = ("grpc.max_receive_message_length", 1 << 28)


def requests(wire: Wire, target: Target, workload: Workload) -> list[bytes]:
    """Return what is sent for each of the workload's requests: an HTTP/1.1 request or a gRPC message."""
    rows = [row[None] for row in workload.requests()]
    if wire == "grpc":
        return [wires.grpc_message(row) for row in rows]
    return [wires.http_request(target, wires.rest_body(wire, row)) for row in rows]


def verify(
    wire: Wire, target: Target, workload: Workload, expected: FloatArray, sent: list[bytes]
) -> list[bytes]:
    """Send each request once and return the output tensors' bytes, all of them right. Raises ReplyError."""
    size = 4 * int(np.prod(workload.answer))
    parts = []
    for request, wanted in zip(sent, expected, strict=True):
        part = wires.tensor_bytes(wire, target, ask(wire, target, request), size)
        check(wires.floats(wire, part), wanted, workload.relative_tolerance)
        parts.append(part)
    return parts


def check(found: FloatArray, wanted: FloatArray, relative_tolerance: float) -> None:
    """Raise ReplyError unless *found* is *wanted*, up to a part of its largest value."""
    wanted = wanted.reshape(-1)
    if found.shape != wanted.shape:
        raise ReplyError(f"{found.size} values came, {wanted.size} were expected")
    scale = float(np.abs(wanted).max())
    worst = float(np.abs(found - wanted).max())
    if not worst <= relative_tolerance * scale:  # not `>`: NaN must fail
        raise ReplyError(f"a value is off by {worst:.3g}, where the largest is {scale:.3g}")


def ask(wire: Wire, target: Target, request: bytes) -> bytes:
    """Send one prepared request and return the reply's body or message. Raises ReplyError or OSError."""
    return _ask_grpc(target, request) if wire == "grpc" else _ask_http(target, request)


def _ask_http(target: Target, request: bytes) -> bytes:
    with _connect(target.rest or "") as connection:
        connection.sendall(request)
        with closing(HTTPResponse(connection, method="POST")) as response:
            response.begin()
            body = response.read()
    if response.status != 200:
        raise ReplyError(f"status {response.status}: {body[:300]!r}")
    return body


def _connect(address: str) -> socket:
    path = address.removeprefix("unix:")
    connection = socket(AF_INET if path == address else AF_UNIX, SOCK_STREAM)
    connection.settimeout(TIMEOUT_S)
    host, _, port = address.rpartition(":")
    connection.connect((host, int(port)) if path == address else path)
    return connection


def _ask_grpc(target: Target, message: bytes) -> bytes:
    with grpc.insecure_channel(target.grpc or "", options=[_LARGEST_MESSAGE]) as channel:
        call = channel.unary_unary(wires.GRPC_PATH)  # bytes in, bytes out
        try:
            reply: bytes = call(message[GRPC_PREFIX_BYTES:], timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            raise ReplyError(f"gRPC {error.code().name}: {error.details()}") from error
    return reply
