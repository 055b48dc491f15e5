"""What a rollout will take: time and requests of each step, and how soon a regression is caught. Pure.

Rollouts with the plan's own steps and guardrails are played with random traffic, judged by the code that
judges real ones (`fleet`). Ticks are as long as real ones at first and then 3 % of the time so far, so that
an endpoint with few requests is played through in as many of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from control_plane.analysis import budget, fleet
from control_plane.analysis.comparison import SAFE_ALPHA
from control_plane.analysis.eprocess import Array
from control_plane.analysis.fleet import Fleet, Rules, Times
from control_plane.analysis.ladder import Ladder
from control_plane.domain.rollout import Guardrail, Step
from control_plane.errors import InvalidInputError

ERROR_RISES: Final = (0.005, 0.01, 0.05, 0.2)
SLOWDOWNS: Final = (0.1, 0.2, 0.5)
DEFAULT_RUNS: Final = 100
MAX_RUNS: Final = 2_000
_TICK_S: Final = 5.0
_GROWTH: Final = 0.03
_MAX_TICKS: Final = 400
_COPIES_DIFFER: Final = 0.005
"""Share of copies that two good versions are taken to answer differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPrediction:
    """One step, were the candidate as good as stable. Seconds; None where it takes more than days."""

    weight: float
    mirror: float
    median_s: float | None
    p90_s: float | None
    median_requests: int | None
    """The candidate's requests, or copies, at this step."""
    p90_requests: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegressionPrediction:
    """How soon one kind of regression is caught. Times count from the first step."""

    kind: str
    """`errors` (size: a share that is added) or `latency` (size: a factor less 1)."""
    size: float
    median_s: float | None
    """None where less than half of such rollouts are rolled back."""
    p90_s: float | None
    median_requests: int | None
    """The candidate's requests that it takes."""
    caught: float
    """Share of rollouts that are rolled back before they end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What to expect of a plan."""

    runs: int
    steps: tuple[StepPrediction, ...]
    total_median_s: float | None
    total_p90_s: float | None
    regressions: tuple[RegressionPrediction, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, with the fields' names."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Scenario:
    """Regressions by run: what is added to the error rate, and by which factor times grow."""

    error_rate: Array
    slowdown: Array


@dataclass(slots=True)
class _Played:
    """When things happened in each run; infinite where they did not."""

    left_s: Array
    """When each step was passed, (runs, steps)."""
    requests: Array
    """The candidate's requests, or copies, at each step, (runs, steps)."""
    failed_s: Array
    failed_requests: Array


def predict(
    *,
    rate: float,
    error_rate: float,
    p50_s: float,
    p95_s: float,
    steps: Sequence[Step],
    guardrails: Sequence[Guardrail],
    runs: int = DEFAULT_RUNS,
    seed: int = 0,
) -> Prediction:
    """What to expect of a rollout with these *steps* on an endpoint of *rate* requests/s.

    error_rate, p50_s, p95_s: stable's own. runs: simulated rollouts for each case; the same *seed* gives the
    same prediction. Raises InvalidInputError.
    """
    _check(rate, error_rate, p50_s, p95_s, runs)
    cases = [
        (0.0, 1.0),
        *((rise, 1.0) for rise in ERROR_RISES),
        *((0.0, 1.0 + slower) for slower in SLOWDOWNS),
    ]
    scenario = _Scenario(
        np.repeat([min(error_rate + rise, 1.0) for rise, _ in cases], runs),
        np.repeat([slowdown for _, slowdown in cases], runs),
    )
    played = _play(rate, error_rate, fleet.times(p50_s, p95_s), scenario, steps, guardrails, seed)
    named = [("errors", rise) for rise in ERROR_RISES] + [("latency", slower) for slower in SLOWDOWNS]
    starts = np.concatenate([np.zeros((runs, 1)), played.left_s[:runs, :-1]], axis=1)
    return Prediction(
        runs=runs,
        steps=tuple(
            _step(step, played.left_s[:runs, index], starts[:, index], played.requests[:runs, index])
            for index, step in enumerate(steps)
        ),
        total_median_s=_quantile(played.left_s[:runs, -1], 0.5),
        total_p90_s=_quantile(played.left_s[:runs, -1], 0.9),
        regressions=tuple(
            _regression(kind, size, played, slice(number * runs, (number + 1) * runs))
            for number, (kind, size) in enumerate(named, start=1)
        ),
    )


def _check(rate: float, error_rate: float, p50_s: float, p95_s: float, runs: int) -> None:
    if not 0.0 < rate < 1e6:
        raise InvalidInputError(f"the rate must be above 0 requests/s, not {rate:g}")
    if not 0.0 <= error_rate < 1.0:
        raise InvalidInputError(f"the error rate is a share from 0 to 1, not {error_rate:g}")
    if not 0.0 < p50_s <= p95_s < 1e5:
        raise InvalidInputError(f"p50 and p95 must be above 0 and in order, not {p50_s:g} s and {p95_s:g} s")
    if not 1 <= runs <= MAX_RUNS:
        raise InvalidInputError(f"runs must be from 1 to {MAX_RUNS}, not {runs}")


def _play(
    rate: float,
    error_rate: float,
    buckets: Times,
    scenario: _Scenario,
    steps: Sequence[Step],
    guardrails: Sequence[Guardrail],
    seed: int,
) -> _Played:
    """Play every run to its end. Runs that have ended are dropped, so that time goes into the others."""
    rng = np.random.default_rng(seed)
    total = len(scenario.error_rate)
    played = _Played(
        *(np.full((total, len(steps)), math.inf) for _ in range(2)),
        *(np.full(total, math.inf) for _ in range(2)),
    )
    by, ladder, live = (
        fleet.rules(guardrails, buckets),
        Ladder(steps, total, _copies(guardrails)),
        np.arange(total),
    )
    seen, so_far, now_s = fleet.start(total, buckets), np.zeros(total), 0.0
    shares = (buckets.shares(np.ones(1)), buckets.shares(scenario.slowdown))
    weights, mirrors = (np.array([getattr(step, name) for step in steps]) for name in ("weight", "mirror"))
    for _ in range(_MAX_TICKS):
        span_s = max(_TICK_S, _GROWTH * now_s)
        now_s += span_s
        weight = weights[ladder.index]
        tick = fleet.draw(
            rng,
            stable=(rate * span_s * (1.0 - weight), np.full(len(live), error_rate), shares[0]),
            candidate=(rate * span_s * weight, scenario.error_rate[live], shares[1][live]),
        )
        seen = fleet.advance(seen, tick, by)
        ladder.baked_s += span_s
        ladder.requests += tick.counts.n_c + rng.poisson(rate * span_s * mirrors[ladder.index])
        so_far = so_far + tick.counts.n_c
        live, seen, so_far = _settle(played, ladder, live, seen, so_far, by, now_s)
        if not live.size:
            break
    return played


def _settle(
    played: _Played,
    ladder: Ladder,
    live: np.ndarray[Any, np.dtype[np.intp]],
    seen: Fleet,
    so_far: Array,
    by: Rules,
    now_s: float,
) -> tuple[np.ndarray[Any, np.dtype[np.intp]], Fleet, Array]:
    """Note what a tick has decided, and keep the runs that go on."""
    failed = seen.worse(by)
    played.failed_s[live[failed]] = now_s
    played.failed_requests[live[failed]] = so_far[failed]
    leaving = ladder.leaves(seen.safe(by)) & ~failed
    left = ladder.index[leaving]
    late_s = ladder.late_s[leaving]
    played.left_s[live[leaving], left] = now_s - late_s
    played.requests[live[leaving], left] = ladder.requests[leaving] * (1.0 - late_s / ladder.baked_s[leaving])
    ladder.move(leaving)
    kept = ~failed & (ladder.index < played.left_s.shape[1])
    if kept.all():
        return live, seen, so_far
    ladder.of(kept)
    return live[kept], seen.of(kept), so_far[kept]


def _copies(guardrails: Sequence[Guardrail]) -> float:
    """Copies that prove a small disagreement to be within its budget."""
    for guardrail in guardrails:
        if guardrail.name == "disagreement" and not guardrail.observe_only:
            speed = budget.growth(_COPIES_DIFFER, max(guardrail.max_regression, 2.0 * _COPIES_DIFFER))
            return math.ceil((math.log(len(budget.WITHIN)) - math.log(SAFE_ALPHA)) / speed)
    return 0.0


def _step(step: Step, left_s: Array, began_s: Array, requests: Array) -> StepPrediction:
    came = np.isfinite(began_s)
    spent = np.where(came, left_s - np.where(came, began_s, 0.0), math.inf)
    counts = [_quantile(requests, q) for q in (0.5, 0.9)]
    return StepPrediction(
        weight=step.weight,
        mirror=step.mirror,
        median_s=_quantile(spent, 0.5),
        p90_s=_quantile(spent, 0.9),
        median_requests=None if counts[0] is None else round(counts[0]),
        p90_requests=None if counts[1] is None else round(counts[1]),
    )


def _regression(kind: str, size: float, played: _Played, runs: slice) -> RegressionPrediction:
    failed_s, requests = played.failed_s[runs], _quantile(played.failed_requests[runs], 0.5)
    return RegressionPrediction(
        kind=kind,
        size=size,
        median_s=_quantile(failed_s, 0.5),
        p90_s=_quantile(failed_s, 0.9),
        median_requests=None if requests is None else round(requests),
        caught=float(np.isfinite(failed_s).mean()),
    )


def _quantile(values: Array, q: float) -> float | None:
    """The value that a share *q* of all runs does not exceed, to a tenth; None where it is infinite."""
    found = float(np.quantile(values, q, method="higher"))
    return round(found, 1) if math.isfinite(found) else None
