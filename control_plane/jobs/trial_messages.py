"""What the two sides of a trial say to each other, as JSON."""

from __future__ import annotations

from typing import Literal

import msgspec

from serving_agent.contract.signature import Signature, TensorSpec


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the trial's process is told on its stdin."""

    format: str
    artifact_dir: str
    signature: Signature
    memory_bytes: int
    cpu_s: int
    """Processor time of all its threads, in seconds."""
    exact: bool = False
    """Whether the file may hold no weights but the network's."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the trial's process says at its end, on the pipe it was given."""

    outputs: tuple[TensorSpec, ...] = ()
    failed: Literal["load", "run", "results", "memory"] | None = None
    message: str = ""
