"""Simulated rollouts: judged as real ones are, and predictions that make sense."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.rollouts import simulation as benchmark
from control_plane.analysis import catalog, comparison, eprocess, evidence, exceedance, fleet, simulation
from control_plane.analysis.base import ArmCounts, Tick
from control_plane.domain.rollout import Step, Strategy, default_steps
from control_plane.errors import InvalidInputError

DEFAULTS = catalog.defaults()
CANARY = default_steps(Strategy.CANARY)


def predict(**more: Any) -> simulation.Prediction:
    given = {
        "rate": 50.0, "error_rate": 0.005, "p50_s": 0.04, "p95_s": 0.091, "steps": CANARY,
        "guardrails": DEFAULTS, "runs": 24,
    }  # fmt: skip
    return simulation.predict(**{**given, **more})


def arm(counts: tuple[float, float], by_bucket: Any) -> ArmCounts:
    return ArmCounts(
        requests=int(counts[0]), errors=int(counts[1]), latency=tuple(int(count) for count in by_bucket)
    )


def test_many_runs_at_once_are_judged_as_real_ones_tick_by_tick() -> None:
    runs, rng = 5, np.random.default_rng(3)
    buckets = fleet.times(0.04, 0.091)
    by = fleet.rules(DEFAULTS, buckets)
    together = fleet.start(runs, buckets)
    alone = [evidence.start(DEFAULTS) for _ in range(runs)]
    shares = buckets.shares(np.ones(1)), buckets.shares(np.full(runs, 1.2))
    for number in range(40):
        weight = np.full(runs, 0.05 if number < 20 else 0.5)
        made = fleet.draw(
            rng,
            stable=(200.0 * (1.0 - weight), np.full(runs, 0.02), shares[0]),
            candidate=(200.0 * weight, np.full(runs, 0.04), shares[1]),
        )
        together = fleet.advance(together, made, by)
        for run in range(runs):
            n_c, e_c, n_s, e_s = (value[run] for value in made.counts)
            one = Tick(
                end_ms=5000 * (number + 1),
                span_s=5.0,
                weight=float(weight[run]),
                stable=arm((n_s, e_s), made.stable[run]),
                candidate=arm((n_c, e_c), made.candidate[run]),
                latency_bounds_s=tuple(buckets.bounds_s.tolist()),
            )
            alone[run] = evidence.advance(alone[run], one, DEFAULTS)
        errors = [comparison.of(seen.states["errors"]) for seen in alone]
        latency = [exceedance.of(seen.states["latency"]) for seen in alone]
        for many, each in (
            (together.errors.log_worse, [seen.log_worse for seen in errors]),
            (together.errors.log_safe, [seen.log_safe for seen in errors]),
            (together.latency.log_worse, [seen.log_worse for seen in latency]),
            (together.latency.log_safe, [seen.log_safe for seen in latency]),
        ):
            assert many == pytest.approx([float(log) for log in each], rel=1e-9, abs=1e-9)
    assert together.worse(by).any()


def test_drawn_requests_are_as_many_and_as_slow_as_asked_for() -> None:
    buckets = fleet.times(0.04, 0.091)
    assert buckets.shares(np.ones(1)).sum() == pytest.approx(1.0)
    made = fleet.draw(
        np.random.default_rng(1),
        stable=(np.full(1, 1e6), np.full(1, 0.01), buckets.shares(np.ones(1))),
        candidate=(np.full(1, 1e6), np.full(1, 0.02), buckets.shares(np.full(1, 2.0))),
    )
    assert made.counts.e_s[0] / made.counts.n_s[0] == pytest.approx(0.01, rel=0.05)
    assert made.counts.n_c.sum() == made.candidate.sum()
    for by_bucket, p95_s in ((made.stable[0], 0.091), (made.candidate[0], 0.182)):
        assert exceedance.quantile_s(by_bucket, buckets.bounds_s, 0.95) == pytest.approx(p95_s, rel=0.02)


def test_a_prediction_is_plain_and_repeats() -> None:
    found = predict()
    assert json.loads(json.dumps(found.to_json())) == json.loads(json.dumps(predict().to_json()))
    assert found != predict(seed=1)
    assert [step.weight for step in found.steps] == [step.weight for step in CANARY]
    assert {(one.kind, one.size) for one in found.regressions} == {
        *(("errors", size) for size in simulation.ERROR_RISES),
        *(("latency", size) for size in simulation.SLOWDOWNS),
    }


def test_a_prediction_says_what_the_goals_ask_for() -> None:
    found = predict()
    first = found.steps[0]
    assert first.median_s is not None
    assert first.median_requests is not None
    assert 300.0 <= first.median_s <= 600.0
    assert all(step.median_s is not None and step.median_s <= 300.0 for step in found.steps[1:])
    caught = {(one.kind, one.size): one for one in found.regressions}
    assert caught["errors", 0.2].caught == 1.0
    assert (caught["errors", 0.2].p90_s or 1e9) <= 30.0
    assert (caught["latency", 0.2].p90_s or 1e9) <= 240.0
    larger = [caught["errors", size].median_s or 1e9 for size in simulation.ERROR_RISES]
    assert larger == sorted(larger, reverse=True)


def test_few_requests_take_longer_and_more_weight_helps() -> None:
    slow = predict(rate=2.0, steps=(Step(weight=0.05), Step(weight=1.0))).steps[0]
    quick = predict(rate=2.0, steps=(Step(weight=0.5), Step(weight=1.0))).steps[0]
    assert slow.median_s is not None
    assert quick.median_s is not None
    assert slow.median_s > 3600.0 > quick.median_s


def test_hardly_any_requests_are_told_to_take_days() -> None:
    found = predict(rate=1e-5)
    assert found.total_median_s is None
    assert found.steps[0].median_requests is None


def test_steps_without_comparison_take_their_time_alone() -> None:
    steps = (Step(weight=0.0, mirror=0.2, bake_s=60.0), Step(weight=0.0, bake_s=60.0), Step(weight=1.0))
    found = predict(steps=steps, runs=3)
    assert found.steps[0].median_requests is not None
    assert found.steps[0].median_requests >= 200
    assert (found.steps[1].median_s, found.steps[1].median_requests) == (60.0, 0)
    assert found.total_median_s is not None
    assert found.total_median_s < 500.0
    assert all(one.caught == 0.0 for one in found.regressions)


def test_without_guardrails_nothing_is_caught() -> None:
    found = predict(guardrails=(), runs=3, steps=(Step(weight=0.5), Step(weight=1.0)))
    assert all(one.caught == 0.0 for one in found.regressions)
    assert found.steps[0].median_s is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 0.0},
        {"rate": float("nan")},
        {"error_rate": 1.0},
        {"error_rate": -0.1},
        {"p50_s": 0.0},
        {"p50_s": 0.2, "p95_s": 0.1},
        {"runs": 0},
    ],
)
def test_figures_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError):
        predict(**wrong)


def test_thresholds_of_the_benchmark_see_the_same_traffic() -> None:
    bad = benchmark.Scenario(name="bad", rate=50.0, rise=0.2, horizon_s=600.0, runs=40)
    played = benchmark.play(bad)
    shares = {name: crossing.share for name, crossing in played.rules.items()}
    assert shares["rolled back"] == shares["flagger"] == shares["argo"] == 1.0
    ours, flagger = (played.rules[name] for name in ("rolled back", "flagger"))
    assert (ours.quantile(ours.at_s, 0.9) or 1e9) <= 30.0
    assert flagger.at_s.min() == 300.0
    assert played.rules["argo"].at_s.min() == 240.0


def test_the_scenarios_have_names_of_their_own() -> None:
    names = [scenario.name for scenario in benchmark.scenarios(2000)]
    assert len(set(names)) == len(names)


def test_alternatives_are_weighted_to_one() -> None:
    for prior in (eprocess.WORSE_PRIOR, eprocess.SAFE_PRIOR):
        assert prior.sum() == pytest.approx(1.0)
