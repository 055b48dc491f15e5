"""What a transport hands to the dataplane and gets back: requests and replies free of any wire format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from serving_agent.datatypes import Array


@dataclass(frozen=True, slots=True)
class JsonData:
    """Tensor data as JSON carries it: nested or flat lists, row-major."""

    values: Any


@dataclass(frozen=True, slots=True)
class RawData:
    """Tensor data in raw form (see `tensors`)."""

    content: memoryview | bytes


@dataclass(frozen=True, slots=True)
class FlatData:
    """Tensor data as a flat sequence of scalars, from a protobuf's typed field."""

    values: Sequence[Any]


TensorData = JsonData | RawData | FlatData


@dataclass(frozen=True, slots=True)
class WireTensor:
    """One input as a client sent it, not yet checked."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: TensorData


@dataclass(frozen=True, slots=True)
class InferRequest:
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


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One output: `array` has the protocol's shape."""

    name: str
    datatype: str
    array: Array


@dataclass(frozen=True, slots=True)
class InferReply:
    """What the model answered."""

    id: str
    outputs: tuple[OutputTensor, ...] = field(default=())
