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
    """Jobs that measure, of the lab and of profiles: one at a time, or they would measure each other."""
    DEBUG = "debug"
    """Runs of the debugger, for which somebody sits and waits: one at a time."""
    LIVE = "live"
    """Profiles of live agents, which only listen: one at a time."""


LAB_KINDS: Final = ("optimize", "autotune", "profile")
"""Kinds of jobs of the lab's lane."""
DEBUG_KINDS: Final = ("debug",)
"""Kinds of jobs of the debugger's lane."""
LIVE_KINDS: Final = ("profile_live",)
"""Kinds of jobs of the lane of live agents' profiles."""
ONE_AT_A_TIME: Final = {Lane.LAB: LAB_KINDS, Lane.DEBUG: DEBUG_KINDS, Lane.LIVE: LIVE_KINDS}
"""Lanes with kinds of their own; all other kinds are of the main lane."""


def lane_of(kind: str) -> Lane:
    """Lane of jobs of that kind."""
    return next((lane for lane, kinds in ONE_AT_A_TIME.items() if kind in kinds), Lane.MAIN)
