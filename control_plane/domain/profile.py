"""Profiles as people ask for them and as services show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from control_plane.domain.views import Reason
from serving_agent.contract.profile import (
    MAX_LIVE_S,
    MAX_RATE_HZ,
    MAX_REQUESTS,
    SWEEP,
    TAKES,
    KeyFigures,
    Report,
    Taken,
)

PROFILE: Final = "profile"
"""Kind of the jobs that profile a version."""
PROFILE_LIVE: Final = "profile_live"
"""Kind of the jobs that profile a live agent."""
MAX_NAME_CHARS: Final = 100
MAX_BATCH: Final = 4096
MAX_SECONDS: Final = 120.0
MAX_THREADS: Final = 256
MAX_SIZES: Final = 16
INPUTS: Final = ("examples", "random")

Input = Literal["examples", "random"]


class Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be taken. Of a live agent only `requests`, `seconds` and `rate_hz` count: clients bring the
    rest."""

    requests: int = 20
    """Requests that each profiler sees, at most; of a live agent: that it answers until the profile ends."""
    seconds: float = 5.0
    """How long each profiler, and each batch size of the sweep, may take; of a live agent: all of it."""
    batch: int = 1
    """Rows of one request."""
    take: tuple[Taken, ...] = TAKES
    sweep: tuple[int, ...] = SWEEP
    """Batch sizes of the sweep, in rows."""
    input: Input = "examples"
    """`examples` of the version where there are any, or `random` by its signature."""
    threads: int = 1
    rate_hz: int = 100
    """Samples a second."""

    def __post_init__(self) -> None:
        _within("requests", self.requests, 1, MAX_REQUESTS)
        _within("seconds", self.seconds, 0.05, MAX_SECONDS)
        _within("batch", self.batch, 1, MAX_BATCH)
        _within("threads", self.threads, 1, MAX_THREADS)
        _within("rate_hz", self.rate_hz, 1, MAX_RATE_HZ)
        if not self.take:
            raise ValueError(f"take must name at least one of {', '.join(TAKES)}")
        if len(self.sweep) > MAX_SIZES:
            raise ValueError(f"sweep may name {MAX_SIZES} sizes at most")
        if list(self.sweep) != sorted(set(self.sweep)):
            raise ValueError("sweep must be ascending sizes")
        if "sweep" in self.take and not self.sweep:
            raise ValueError("sweep must name at least one size")
        for size in self.sweep:
            _within("a size of sweep", size, 1, MAX_BATCH)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low:g} to {high:g}")


LIVE: Final = Wish(requests=200, seconds=30.0)
"""What is taken of a live agent where nothing else is said."""
LONGEST_LIVE_S: Final = MAX_LIVE_S


class ProfileOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of a job."""

    report_id: str
    ref: str
    """`model@N`."""
    endpoint: str | None
    """The endpoint whose serving agent is profiled; None: the version in a process of its own."""
    wish: Wish


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileView:
    """One profile: what was asked for, where it is, and its figures in short."""

    id: str
    name: str
    """Given by people, or empty."""
    ref: str
    """`model@N` that was profiled."""
    endpoint: str | None
    """Whose serving agent was profiled; None: the version in a process of its own."""
    job_id: str
    state: str
    """The job's."""
    stage: str
    progress: float
    time_left_s: float | None
    reason: Reason | None
    """Why there is no report."""
    asked: Wish
    summary: KeyFigures | None
    files: tuple[str, ...]
    """Names of files that can be had of it."""
    size_bytes: int
    created_by: str
    created_at: float
    expires_at: float

    @property
    def is_ready(self) -> bool:
        """Whether there is a report."""
        return self.summary is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("succeeded", "failed", "cancelled")

    @property
    def title(self) -> str:
        """Its name, or what it is of."""
        return self.name or (f"{self.ref} at {self.endpoint}" if self.endpoint else self.ref)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """One thing that usually helps."""

    sentence: str
    method: str | None = None
    """Optimisation method that would try it; None for something people set themselves."""
    profiles_version: bool = False
    """Whether a profile of the version is what helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One large cost."""

    name: str
    kind: str
    """`stage`, `layer`, `operator` or `function`."""
    seconds: float
    """In one request where it is known, else in all that were seen."""
    share: float
    """Of the whole that it is part of, in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A report in plain words."""

    headline: str
    costs: tuple[Cost, ...]
    """The three largest."""
    hints: tuple[Hint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileDetail:
    """One profile with its report, where there is one."""

    view: ProfileView
    summary: Summary | None
    report: Report | None
