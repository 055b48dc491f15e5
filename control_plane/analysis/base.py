"""What evidence is made of: ticks of counts in, readings and a verdict out. Pure.

A tick is a short time (some seconds) in which requests were split at random between stable and candidate.
All that a guardrail knows is in its state, which is plain JSON: the same ticks give the same state, bit for
bit, however often the controller was killed between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from control_plane.domain.rollout import Guardrail, Step, VerdictKind

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCounts:
    """What one version did in one tick. A field is None where its source said nothing in that tick."""

    requests: int = 0
    """Requests whose last try went to this version, by the gateway's count."""
    errors: int = 0
    """Of those, answered with a server error (5xx, or gRPC's like)."""
    tries: int | None = None
    """Tries the gateway sent to this version, those that were repeated elsewhere included."""
    failed_tries: int | None = None
    """Of those, answered 5xx, reset, or not connected."""
    latency: tuple[int, ...] | None = None
    """Requests by bucket of total time: `latency_bounds_s` of the tick, and one more for what is above."""
    first_byte: tuple[int, ...] | None = None
    """Requests by bucket of time to the first byte: same bounds."""
    answers: int | None = None
    """Answers of the model itself, by the agents' count."""
    nonfinite: int | None = None
    """Of those, with a NaN or an infinity in an output."""
    outputs: Mapping[str, int] | None = None
    """Answers (rows) by class, or by bin of their value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Copies answered by both versions in one tick."""

    compared: int = 0
    disagreed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One tick. end_ms: its end in milliseconds since the epoch, and its identity."""

    end_ms: int
    span_s: float
    weight: float | None
    """The candidate's share as the gateway had it all the tick long; None when it changed meanwhile."""
    stable: ArmCounts
    candidate: ArmCounts
    latency_bounds_s: tuple[float, ...] = ()
    """Upper bounds of the latency buckets, ascending."""
    pairs: Pairs | None = None
    by_unit: bool = False
    """Whether requests, errors and latency are counted by client or session, each once a step."""
    repeated: int = 0
    """By unit: requests of clients that were counted before. They say nothing new, but that data flows."""

    @property
    def is_split(self) -> bool:
        """Whether requests were split at random between both versions."""
        return self.weight is not None and 0.0 < self.weight < 1.0

    def without_news(self, state: Json) -> Json:
        """The *state* of what counts by unit, after a tick without new units: as fresh as their requests."""
        return {**state, "at": self.end_ms} if self.repeated and state["at"] is not None else state

    @property
    def is_copied(self) -> bool:
        """Whether the candidate got copies of stable's requests instead, picked at random."""
        return self.weight == 0.0 and self.pairs is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One comparison as people see it. Shares in [0, 1] unless *unit* says otherwise; None: not known yet."""

    stable: float | None
    candidate: float | None
    difference: float | None
    low: float | None
    """Lower end of the difference's anytime-valid interval."""
    high: float | None
    unit: str
    """`share`, `s`, `PSI`, ..."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one guardrail says now."""

    name: str
    title: str
    outcome: str
    """`worse`, `safe`, `undecided`, `no_data`, or `not_applicable` at this step."""
    sentence: str
    """Why, for people: `server errors: candidate 5.1 % against 0.4 % of stable`."""
    worse: float
    """Progress of the evidence to "worse", in [0, 1]; 1 decides."""
    safe: float
    """Progress of the evidence to "safe", in [0, 1]; 1 decides."""
    figure: Figure
    stable_n: int
    candidate_n: int
    tolerance: float
    max_regression: float
    observe_only: bool = False
    log_evidence: float = 0.0
    """Natural logarithm of the evidence for "worse": says which of several is proven best."""
    more_requests: int | None = None
    """Estimate of candidate requests still needed to decide; None where nothing can be said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What all guardrails say together."""

    kind: VerdictKind
    code: str
    """Stable reason: a guardrail's name, `all-safe`, `undecided`, `no-data`, `stale`, `split`, ..."""
    sentence: str
    at: float
    """When it was given, UTC seconds."""
    readings: tuple[Reading, ...] = ()
    eta_s: float | None = None
    """Estimated time to a decision at the present rate; None where nothing can be said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that has been counted for one rollout; `states` are the guardrails' own, by name."""

    ticks: int = 0
    last_tick_ms: int | None = None
    last_data_ms: int | None = None
    """End of the last tick in which either version did anything."""
    candidate_requests: int = 0
    stable_requests: int = 0
    rate: float = 0.0
    """The candidate's requests per second, smoothed over the last minute or so."""
    states: Mapping[str, Json] = field(default_factory=dict)


class Metric(Protocol):
    """One kind of guardrail: one module of `analysis.metrics`, one line of `analysis.catalog`."""

    @property
    def name(self) -> str:
        """Key in the catalogue."""

    @property
    def title(self) -> str:
        """Name for people."""

    @property
    def required(self) -> bool:
        """Whether nothing passes without its data; others count from the first time they are measured."""

    @property
    def default(self) -> Guardrail:
        """Usual tolerance, largest regression and share of alpha."""

    def applies(self, step: Step) -> bool:
        """Whether it judges at such a step: not every one does while only copies are sent."""

    def start(self, guardrail: Guardrail) -> Json:
        """The state before any tick."""

    def update(self, guardrail: Guardrail, state: Json, tick: Tick) -> Json:
        """The state after *tick*; *state* itself is not changed. Pure and deterministic.

        `at` of a state is the end of the last tick in which its source said something, or None.
        """

    def read(self, guardrail: Guardrail, state: Json, *, alpha: float) -> Reading:
        """What the state says. alpha: chance of a false "worse" that this guardrail may use up."""
