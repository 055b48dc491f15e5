"""How an endpoint's agents serve: batching, response cache, how torch runs the model, health checks."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Autocast = Literal["off", "bf16"]

MAX_ROWS: Final = 4096
"""Largest batch an endpoint may ask for, in rows."""


class Batching(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Rows of several requests run as one: at once when the model is idle, gathered while it is busy."""

    max_rows: int = 32
    """Most rows of one batch; 1 turns batching off."""
    max_delay_ms: float = 0.0
    """How long a request may wait for others while the model is idle, in milliseconds."""
    buckets: tuple[int, ...] = ()
    """Batch sizes in rows, ascending, that batches are padded to; empty for no padding."""
    adaptive: bool = False
    """Whether requests that would miss their deadline, by measured batch durations, are refused at once."""

    def __post_init__(self) -> None:
        if not 1 <= self.max_rows <= MAX_ROWS:
            raise ValueError(f"max_rows must be 1 to {MAX_ROWS}")
        if not 0 <= self.max_delay_ms <= 1000:
            raise ValueError("max_delay_ms must be 0 to 1000")
        if list(self.buckets) != sorted({size for size in self.buckets if 1 <= size <= self.max_rows}):
            raise ValueError("buckets must be ascending sizes from 1 to max_rows")


class Cache(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Answers given again to equal requests of the same version."""

    max_bytes: int = 0
    """Memory for answers, in bytes; 0 turns the cache off."""
    ttl_s: float = 60.0
    """How long an answer may be given again, in seconds."""

    def __post_init__(self) -> None:
        if self.max_bytes < 0:
            raise ValueError("max_bytes must not be negative")
        if not self.ttl_s > 0:
            raise ValueError("ttl_s must be more than 0")


class Execution(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How torch runs the model; an option that is on is measured against off when the agent starts."""

    channels_last: bool = False
    """Whether four-dimensional tensors lie in memory with their channels last."""
    autocast: Autocast = "off"
    """`bf16` lets torch choose bfloat16 for the operations that gain from it."""
    compile: bool = False
    """Whether torch.compile translates the model; it makes the start longer."""

    @property
    def is_default(self) -> bool:
        """Whether the model runs as it was stored."""
        return self == AS_STORED


AS_STORED: Final = Execution()


MOST_SAMPLES_PER_MINUTE: Final = 600
MOST_KEPT_HOURS: Final = 168.0


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Requests kept, with their answers, for the debugger: few, in the agent's memory, none by default."""

    per_minute: int = 0
    """Requests that each agent keeps in a minute, at most; 0 turns it off."""
    keep_hours: float = 1.0
    """After how long they are forgotten, in hours; newer ones may crowd them out before."""
    redact: tuple[str, ...] = ()
    """Names of inputs and outputs whose data is never kept, not for a rollout either."""

    def __post_init__(self) -> None:
        if not 0 <= self.per_minute <= MOST_SAMPLES_PER_MINUTE:
            raise ValueError(f"per_minute must be 0 to {MOST_SAMPLES_PER_MINUTE}")
        if not 0 < self.keep_hours <= MOST_KEPT_HOURS:
            raise ValueError(f"keep_hours must be more than 0, at most {MOST_KEPT_HOURS:g}")
        if not all(self.redact) or len(set(self.redact)) != len(self.redact):
            raise ValueError("redact must be different names")


class ServingOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an operator may set for each endpoint about serving itself."""

    batching: Batching = Batching()
    cache: Cache = Cache()
    execution: Execution = Execution()
    sampling: Sampling = Sampling()
    max_concurrency: int | None = None
    """Requests an agent works on or holds in its queue before new ones are answered 429; None for no bound
    but the queue's."""
    check_interval_s: float = 15.0
    """Seconds between two test inferences of the health checker; 0 turns it off."""

    def __post_init__(self) -> None:
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise ValueError("max_concurrency must be at least 1")
        if self.check_interval_s < 0:
            raise ValueError("check_interval_s must not be negative")
