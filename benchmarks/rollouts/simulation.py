"""Scenarios, and rollouts simulated through them. The rules are the product's own code (`analysis.fleet`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.rollouts.thresholds import Thresholds
from control_plane.analysis import catalog, fleet
from control_plane.analysis.comparison import SAFE_ALPHA
from control_plane.analysis.eprocess import Array, Counts
from control_plane.analysis.fleet import Mask
from control_plane.analysis.ladder import Ladder
from control_plane.domain.rollout import DEFAULT_WEIGHTS, Guardrail, Step, canary_steps

TICK_S = 5.0
P50_S = 0.04
P95_S = 0.091
"""Lognormal with sigma 0.5."""
TIMED = tuple(Step(weight=weight, bake_s=600.0, min_requests=0) for weight in (0.05, 0.1, 0.25, 0.5, 0.75))
"""Ten minutes a step whatever the evidence says, which is how fixed thresholds climb."""
HELD = (Step(weight=0.05, bake_s=1e9),)
GATED = canary_steps(DEFAULT_WEIGHTS)[:-1]
"""The product's default: at each step until everything is safe, at least 300 s. Ends before weight 1.0."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One row of the report. Rates are shares, times are seconds."""

    name: str
    rate: float
    steps: tuple[Step, ...] = TIMED
    gated: bool = False
    horizon_s: float = 3000.0
    error_rate: float = 0.005
    rise: float = 0.0
    slowdown: float = 1.0
    begins_at: float = 0.0
    """From which weight on the candidate is worse."""
    incident: tuple[float, float, float] | None = None
    """(from, to, rise): errors that both versions have for a while."""
    burst: int = 1
    """Errors come in bursts of so many requests of one client."""
    by_unit: bool = False
    """Whether such a burst counts as one client with an error, as it does where an endpoint has a unit."""
    latency_tolerance: float = 0.0
    runs: int = 4000
    seed: int = 20261129

    def guardrails(self) -> tuple[Guardrail, ...]:
        """The product's defaults, but for the tolerance under test."""
        return tuple(
            replace(guardrail, tolerance=self.latency_tolerance) if guardrail.name == "latency" else guardrail
            for guardrail in catalog.defaults()
        )


@dataclass
class Crossing:
    """When a rule first spoke in each run, and how many requests the candidate had had by then."""

    at_s: Array
    requests: Array

    def note(self, spoke: Mask, now_s: float, requests: Array) -> None:
        new = spoke & np.isinf(self.at_s)
        self.at_s[new] = now_s
        self.requests[new] = requests[new]

    @property
    def share(self) -> float:
        return float(np.isfinite(self.at_s).mean())

    def quantile(self, values: Array, q: float) -> float | None:
        found = float(np.quantile(values, q, method="higher"))
        return found if math.isfinite(found) else None

    def summary(self) -> dict[str, Any]:
        """Shares, quantiles over all runs, and the raw times: how many runs spoke at each second."""
        spoken = self.at_s[np.isfinite(self.at_s)]
        return {
            "share": self.share,
            "median_s": self.quantile(self.at_s, 0.5),
            "p90_s": self.quantile(self.at_s, 0.9),
            "median_requests": self.quantile(self.requests, 0.5),
            "p90_requests": self.quantile(self.requests, 0.9),
            "runs_by_second": {str(int(at)): runs for at, runs in sorted(Counter(spoken.tolist()).items())},
        }


@dataclass
class Played:
    """What every rule did in every run of a scenario."""

    scenario: Scenario
    rules: dict[str, Crossing] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "scenario": asdict(self.scenario),
            "rules": {name: crossing.summary() for name, crossing in self.rules.items()},
        }

    def note(self, name: str, spoke: Mask, now_s: float, requests: Array) -> None:
        crossing = self.rules.setdefault(
            name, Crossing(np.full(spoke.shape, math.inf), np.full(spoke.shape, math.inf))
        )
        crossing.note(spoke, now_s, requests)


class _Traffic:
    """Requests of both versions, tick by tick."""

    def __init__(self, scenario: Scenario, rng: np.random.Generator) -> None:
        self._scenario, self._rng = scenario, rng
        self.buckets = fleet.times(P50_S, P95_S)
        same, slower = np.ones(1), np.full(1, scenario.slowdown)
        self._shares = (self.buckets.shares(same), self.buckets.shares(slower))

    def tick(self, weight: Array, now_s: float) -> fleet.Traffic:
        scenario = self._scenario
        shared = 0.0
        if scenario.incident and scenario.incident[0] <= now_s < scenario.incident[1]:
            shared = scenario.incident[2]
        bad = weight >= scenario.begins_at
        base = np.full(weight.shape, scenario.error_rate + shared)
        shares = np.where(bad[:, None], self._shares[1], self._shares[0])
        drawn = fleet.draw(
            self._rng,
            stable=(scenario.rate * TICK_S * (1.0 - weight), base, self._shares[0]),
            candidate=(scenario.rate * TICK_S * weight, base + np.where(bad, scenario.rise, 0.0), shares),
        )
        return drawn if scenario.burst == 1 else self._in_bursts(drawn, base)

    def _in_bursts(self, drawn: fleet.Traffic, base: Array) -> fleet.Traffic:
        size = self._scenario.burst
        n_c, _, n_s, _ = drawn.counts
        bursts = [self._rng.poisson(requests * base / size).astype(np.float64) for requests in (n_c, n_s)]
        if not self._scenario.by_unit:
            e_c, e_s = (np.minimum(size * some, n) for some, n in zip(bursts, (n_c, n_s), strict=True))
            return replace(drawn, counts=Counts(n_c, e_c, n_s, e_s))
        spared = [np.maximum(n - (size - 1) * some, some) for some, n in zip(bursts, (n_c, n_s), strict=True)]
        return replace(drawn, counts=Counts(spared[0], bursts[0], spared[1], bursts[1]))


def play(scenario: Scenario) -> Played:
    """Simulate all runs of *scenario* to its horizon, or until every rule has spoken in every run."""
    rng = np.random.default_rng(scenario.seed)
    traffic = _Traffic(scenario, rng)
    rules = fleet.rules(scenario.guardrails(), traffic.buckets)
    runs = scenario.runs
    seen, ladder = fleet.start(runs, traffic.buckets), Ladder(scenario.steps, runs, 0.0)
    thresholds = Thresholds(traffic.buckets, P95_S, runs)
    played, requests = Played(scenario), np.zeros(runs)
    weights = np.array([step.weight for step in scenario.steps])
    for number in range(int(scenario.horizon_s / TICK_S)):
        weight = weights[np.minimum(ladder.index, len(weights) - 1)]
        tick = traffic.tick(weight, number * TICK_S)
        now_s = (number + 1) * TICK_S
        seen = fleet.advance(seen, tick, rules)
        requests = requests + tick.counts.n_c
        spoken = _spoken(seen, rules) | thresholds.add(tick, now_s)
        for name, spoke in spoken.items():
            played.note(name, spoke, now_s, requests)
        if all(spoke.all() for spoke in spoken.values()):
            break
        _climb(ladder, tick, spoken["safe"] if scenario.gated else np.ones(runs, dtype=np.bool_))
    return played


def _spoken(seen: fleet.Fleet, rules: fleet.Rules) -> dict[str, Mask]:
    limit = -math.log(SAFE_ALPHA)
    return {
        "rolled back": seen.worse(rules),
        "by errors": seen.worse_errors(rules),
        "by latency": seen.worse_latency(rules),
        "safe": seen.safe(rules),
        "errors safe": seen.errors.log_safe >= limit,
        "latency safe": seen.latency.log_safe >= limit,
    }


def _climb(ladder: Ladder, tick: fleet.Traffic, safe: Mask) -> None:
    """Runs stay on their last step: these rollouts end before weight 1.0."""
    ladder.baked_s += TICK_S
    ladder.requests += tick.counts.n_c
    ladder.move(ladder.leaves(safe) & (ladder.index < ladder.last))


def scenarios(runs: int) -> Sequence[Scenario]:
    """Every row of the report."""
    return [
        *(
            Scenario(name=f"equal, {rate:g} rps", rate=rate, runs=runs)
            for rate in (2.0, 10.0, 50.0, 500.0)
        ),
        Scenario(name="shared +3 pp incident of 8 min", rate=50.0, incident=(720.0, 1200.0, 0.03), runs=runs),
        Scenario(name="equal, gated", rate=50.0, steps=GATED, gated=True, runs=runs),
        Scenario(name="equal, held at 5 %", rate=50.0, steps=HELD, horizon_s=1800.0, runs=runs),
        Scenario(name="equal, errors in bursts of 10", rate=50.0, burst=10, runs=runs),
        Scenario(
            name="the same, counted by client", rate=50.0, burst=10, by_unit=True, runs=runs
        ),
        Scenario(name="+1 pp, 10 rps", rate=10.0, rise=0.01, runs=runs),
        Scenario(name="+1 pp, 50 rps", rate=50.0, rise=0.01, runs=runs),
        Scenario(name="+1 pp, 500 rps", rate=500.0, rise=0.01, horizon_s=900.0, runs=runs),
        Scenario(
            name="+1 pp, gated", rate=50.0, rise=0.01, steps=GATED, gated=True, horizon_s=3600.0, runs=runs
        ),
        Scenario(name="+1 pp, held at 5 %", rate=50.0, rise=0.01, steps=HELD, horizon_s=3600.0, runs=runs),
        Scenario(name="+20 pp, 50 rps", rate=50.0, rise=0.2, horizon_s=600.0, runs=runs),
        Scenario(name="0 to 1 %, 50 rps", rate=50.0, error_rate=0.0, rise=0.01, runs=runs),
        Scenario(name="+5 pp from 50 % on, gated", rate=50.0, rise=0.05, begins_at=0.5, steps=GATED,
                 gated=True, runs=runs),
        Scenario(name="p95 +20 %, 10 rps", rate=10.0, slowdown=1.2, runs=runs),
        Scenario(name="p95 +20 %, 50 rps", rate=50.0, slowdown=1.2, horizon_s=1200.0, runs=runs),
        Scenario(name="p95 +20 %, 50 rps, 9 % tolerated", rate=50.0, slowdown=1.2, latency_tolerance=0.09,
                 horizon_s=1800.0, runs=runs),
        Scenario(name="p95 +30 %, held at 5 %", rate=50.0, slowdown=1.3, steps=HELD, horizon_s=1800.0,
                 runs=runs),
    ]  # fmt: skip
