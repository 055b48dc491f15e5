"""Answers given again to equal requests: bounded by bytes and age, least recently used out first. Pure.

A key holds everything an answer depends on: the artefact's digest, every input's name, type, shape and bytes,
the wanted outputs and the request's parameters. The request's id is no part of it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serving_agent.contract.options import Cache
from serving_agent.datatypes import Array
from serving_agent.messages import OutputTensor, Parameters

ENTRY_BYTES = 512
"""What an entry takes beside its arrays, in bytes, roughly."""

Outputs = tuple[OutputTensor, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    outputs: Outputs
    size: int
    stored_s: float


def key(digest: str, inputs: Mapping[str, Array], outputs: Sequence[str], parameters: Parameters) -> bytes:
    """Return a 32-byte BLAKE2b digest of all an answer depends on, every part delimited by its length."""
    hashed = hashlib.blake2b(digest_size=32)
    hashed.update(repr((digest, tuple(outputs), parameters)).encode())
    for name, array in inputs.items():
        hashed.update(repr((name, array.dtype.str, array.shape)).encode())
        if array.dtype == object:
            for item in array.ravel().tolist():
                hashed.update(len(item).to_bytes(8, "little"))
                hashed.update(item)
        else:
            hashed.update(np.ascontiguousarray(array).data.cast("B"))
    return hashed.digest()


class ResponseCache:
    """The answers of one agent."""

    def __init__(self, options: Cache) -> None:
        self._options = options
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.size = 0
        """Bytes held."""

    @property
    def is_on(self) -> bool:
        """Whether answers are kept at all."""
        return self._options.max_bytes > 0

    def get(self, key: bytes, now_s: float) -> Outputs | None:
        """Return the answer to *key*, unless there is none or it is too old."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now_s - entry.stored_s > self._options.ttl_s:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.outputs

    def put(self, key: bytes, outputs: Outputs, now_s: float) -> None:
        """Keep a copy of *outputs* in place of what was used least recently, unless it is too large."""
        size = ENTRY_BYTES + sum(map(_bytes_of, outputs))
        if size > self._options.max_bytes:
            return
        if key in self._entries:
            self._drop(key)
        while self.size + size > self._options.max_bytes:
            self._drop(next(iter(self._entries)))
        own = tuple(OutputTensor(out.name, out.datatype, out.array.copy()) for out in outputs)
        self._entries[key] = _Entry(own, size, now_s)
        self.size += size

    def _drop(self, key: bytes) -> None:
        self.size -= self._entries.pop(key).size


def _bytes_of(output: OutputTensor) -> int:
    if output.datatype == "BYTES":
        return sum(64 + len(item) for item in output.array.ravel().tolist())
    return int(output.array.nbytes)
