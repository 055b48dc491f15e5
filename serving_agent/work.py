"""One request on its way to the model and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable

import msgspec

from serving_agent.batch import Inputs
from serving_agent.errors import AgentError
from serving_agent.measurements import StageTimes
from serving_agent.messages import OutputTensor, Parameters


class Answer(msgspec.Struct, frozen=True):
    """The outputs of one request and where its time went."""

    outputs: tuple[OutputTensor, ...]
    queue_s: float
    stages: StageTimes
    """Of the whole batch the request was part of."""


Outcome = Answer | AgentError
"""What becomes of a request that was not cancelled."""


class Work(msgspec.Struct, eq=False):
    """One request's arrays, what they may share a batch with, and who is told the outcome."""

    inputs: Inputs
    rows: int
    group: Hashable
    """Requests of equal groups may run together; None runs alone."""
    parameters: Parameters
    submitted_s: float
    """On `time.perf_counter`'s clock, as are all times here."""
    timeout_s: float
    """How long the answer may take from the request's arrival on."""
    deadline_s: float
    done: Callable[[Outcome], None]
    """Called once on the I/O loop's thread, unless the work is cancelled before."""
    record: Callable[[Outcome], None] | None = None
    """Called after `done` would be, though nobody may wait any more; never raises."""
    is_test: bool = False
    """Whether it is the health checker's, which is no traffic."""
    is_settled: bool = False
    """Whether the outcome is known or nobody waits for it any more; set on the loop's thread alone."""
    timer: asyncio.TimerHandle | None = None
