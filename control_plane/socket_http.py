"""One HTTP request to a process on this machine, over a Unix socket or loopback TCP.

A connection is opened per question and closed with it: that costs microseconds, and nothing is left behind
when the other process goes away.
"""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

LARGEST_ANSWER_BYTES: Final = 64 * 1024 * 1024
_CHUNK_BYTES: Final = 256 * 1024


class NoAnswerError(Exception):
    """Nobody answered in time, or to a GET not with status 200."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with any status; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def get(address: str, target: str, timeout_s: float, largest_bytes: int = LARGEST_ANSWER_BYTES) -> bytes:
    """Return the body of `GET target`.

    address: `unix:/path` or `host:port`; timeout_s: for the whole exchange, however slowly it trickles.
    Raises NoAnswerError, also for an answer longer than *largest_bytes*.
    """
    answer = _exchange(address, "GET", target, None, timeout_s, largest_bytes)
    if answer.status != http.client.OK:
        raise NoAnswerError(f"GET {target} was answered with status {answer.status}")
    return answer.body


def post(
    address: str, target: str, body: bytes, timeout_s: float, largest_bytes: int = LARGEST_ANSWER_BYTES
) -> Answer:
    """Return the answer, whatever its status, to `POST target` with JSON *body*; see `get` for the rest."""
    return _exchange(address, "POST", target, body, timeout_s, largest_bytes)


def _exchange(
    address: str, method: str, target: str, body: bytes | None, timeout_s: float, largest_bytes: int
) -> Answer:
    connection = _Connection(address, timeout_s)
    headers = {"connection": "close"} | ({"content-type": "application/json"} if body is not None else {})
    try:
        connection.request(method, target, body=body, headers=headers)
        answer = connection.getresponse()
        content = connection.read_within(answer, largest_bytes)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswerError(f"{method} {target} got no answer: {error}") from error
    finally:
        connection.close()
    named = {name.lower(): value for name, value in answer.getheaders()}
    return Answer(answer.status, named, content)


class _Connection(http.client.HTTPConnection):
    """One deadline for connecting and for every read."""

    def __init__(self, address: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._address = address
        self._deadline = time.monotonic() + timeout_s

    def connect(self) -> None:
        if self._address.startswith("unix:"):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            target: str | tuple[str, int] = self._address.removeprefix("unix:")
        else:
            host, _, port = self._address.rpartition(":")
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            target = (host, int(port))
        self.sock.settimeout(self._left_s())
        self.sock.connect(target)

    def read_within(self, answer: http.client.HTTPResponse, largest_bytes: int) -> bytes:
        body = bytearray()
        while chunk := answer.read1(_CHUNK_BYTES):
            body += chunk
            if len(body) > largest_bytes:
                raise http.client.HTTPException(f"longer than {largest_bytes} bytes")
            if self._left_s() <= 0:
                raise TimeoutError("timed out")
        return bytes(body)

    def _left_s(self) -> float:
        return self._deadline - time.monotonic()
