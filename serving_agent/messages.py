"""What a transport hands to the dataplane and gets back: requests and replies free of any wire format."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from serving_agent.datatypes import Array


class JsonData(msgspec.Struct, frozen=True):
    """Tensor data as JSON carries it: nested or flat lists, row-major, or `json_body.Numbers`."""

    values: Any


class RawData(msgspec.Struct, frozen=True):
    """Tensor data in raw form (see `tensors`)."""

    content: memoryview | bytes


class FlatData(msgspec.Struct, frozen=True):
    """Tensor data as a flat sequence of scalars, from a protobuf's typed field."""

    values: Sequence[Any]


Parameters = tuple[tuple[str, bool | int | float | str], ...]
"""A request's own parameters, sorted by name; those of the protocol itself are not among them."""

TensorData = JsonData | RawData | FlatData


class WireTensor(msgspec.Struct, frozen=True):
    """One input as a client sent it, not yet checked."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: TensorData


class InferRequest(msgspec.Struct):
    """One inference, not yet checked."""

    model: str
    version: str
    """Empty for whichever version this agent serves."""
    inputs: tuple[WireTensor, ...]
    outputs: tuple[str, ...] = ()
    """Names of the wanted outputs, in the wanted order; empty for all."""
    id: str = ""
    timeout_s: float | None = None
    """How long the client waits; the agent's own limit applies too."""
    is_written_later: bool = False
    """Whether its answer is written after it was handed over, where a live profile does not see it."""
    parameters: Parameters = ()
    traceparent: str = ""
    """W3C trace context of the client's span; empty for none."""
    rollout: str = ""
    """Id of the rollout that the request is part of; empty for none."""
    request_id: str = ""
    """The gateway's id of the request, which its copy has too; empty for none."""
    arrived_s: float = msgspec.field(default_factory=time.perf_counter)
    """When the agent had the whole request, on `time.perf_counter`'s clock."""


class OutputTensor(msgspec.Struct, frozen=True):
    """One output: `array` has the protocol's shape."""

    name: str
    datatype: str
    array: Array


class InferReply(msgspec.Struct, frozen=True):
    """What the model answered."""

    id: str
    outputs: tuple[OutputTensor, ...] = ()
