"""Jobs: long work in a process of its own."""

from enum import StrEnum
from typing import Final


class JobState(StrEnum):
    """A job's life, in order; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL_STATES = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})


class Lane(StrEnum):
    """Queues beside each other: a job waits only for others of its own lane."""

    MAIN = "main"
    """As many at a time as SIGNALBOX_JOB_SLOTS says."""
    LAB = "lab"
    """Optimisation jobs, which measure: one at a time, or they would measure each other."""


LAB_KINDS: Final = ("optimize", "autotune")
"""Kinds of jobs of the lab's lane; all others are of the main one."""


def lane_of(kind: str) -> Lane:
    """Lane of jobs of that kind."""
    return Lane.LAB if kind in LAB_KINDS else Lane.MAIN
