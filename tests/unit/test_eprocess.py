"""The statistics: expectations by exact enumeration, and what follows from them."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.analysis import budget, comparison, eprocess, exceedance, interval, sample_ratio
from control_plane.analysis.base import ArmCounts, Tick
from control_plane.analysis.eprocess import Array
from tests.fakes.evidence_ticks import tick

SLACK = 1e-11
RATES = (0.0, 1e-4, 0.003, 0.01, 0.1, 0.5, 0.9, 0.999, 1.0)
SIZES = ((1, 1), (1, 19), (3, 40), (12, 12), (30, 5))
PASTS = ((0, 0), (0, 1000), (5, 1000), (60, 1000), (500, 1000), (990, 1000))


def binomial(n: int, p: float) -> Array:
    return np.array([math.comb(n, k) * p**k * (1.0 - p) ** (n - k) for k in range(n + 1)])


def factors(n_c: int, n_s: int, candidate: Array, stable: Array, delta: float) -> Array:
    """A tick's factors for every outcome, (n_c + 1, n_s + 1, alternatives)."""
    e_c, e_s = np.meshgrid(np.arange(n_c + 1), np.arange(n_s + 1), indexing="ij")
    tick_counts = eprocess.counts(np.full_like(e_c, n_c), e_c, np.full_like(e_s, n_s), e_s)
    return np.exp(eprocess.log_factors(tick_counts, candidate, stable[..., None], delta))


def expectation(found: Array, n_c: int, n_s: int, p_c: float, p_s: float) -> float:
    chance = np.outer(binomial(n_c, p_c), binomial(n_s, p_s))
    return float((chance[..., None] * found).sum(axis=(0, 1)).max())


@pytest.mark.parametrize("delta", [0.0, 0.002, 0.01, 0.05, 0.3])
@pytest.mark.parametrize(("n_c", "n_s"), SIZES)
def test_no_candidate_that_is_not_worse_is_expected_to_gain(n_c: int, n_s: int, delta: float) -> None:
    for past in PASTS:
        stable = eprocess.shrunken(*past)
        found = factors(n_c, n_s, eprocess.worse_alternatives(stable, delta), stable, delta)
        for p_s in RATES:
            for p_c in (*RATES, p_s + delta, p_s + 0.5 * delta):
                if p_c <= min(p_s + delta, 1.0):
                    assert expectation(found, n_c, n_s, p_c, p_s) <= 1.0 + SLACK


@pytest.mark.parametrize("delta", [0.0, 0.002, 0.01, 0.05, 0.3])
@pytest.mark.parametrize(("n_c", "n_s"), SIZES)
def test_no_candidate_that_is_not_safe_is_expected_to_gain(n_c: int, n_s: int, delta: float) -> None:
    for past, part in itertools.product(PASTS, (0.3, 1.0)):
        stable = eprocess.shrunken(*past)
        found = factors(n_c, n_s, eprocess.safe_alternatives(stable, part * stable, delta), stable, delta)
        for p_s in RATES:
            for p_c in (*RATES, p_s + delta, p_s + 1.5 * delta):
                if p_s + delta <= p_c <= 1.0:
                    assert expectation(found, n_c, n_s, p_c, p_s) <= 1.0 + SLACK


def test_expectation_is_one_where_the_candidate_is_nearest_to_worse() -> None:
    stable = np.asarray(0.02)
    found = factors(6, 30, np.array([0.1]), stable, 0.0)
    pooled = (6 * 0.1 + 30 * 0.02) / 36
    assert expectation(found, 6, 30, pooled, pooled) == pytest.approx(1.0, abs=1e-12)


@given(
    n_c=st.integers(1, 500),
    n_s=st.integers(1, 5000),
    candidate=st.floats(1e-5, 0.9),
    stable=st.floats(1e-5, 0.9),
    delta=st.floats(0.001, 0.09),
)
def test_the_nearest_point_of_the_edge_is_found(
    n_c: int, n_s: int, candidate: float, stable: float, delta: float
) -> None:
    def distance(y: float) -> float:
        def one(t: float, q: float) -> float:
            return t * math.log(t / q) + (1 - t) * math.log((1 - t) / (1 - q))

        return n_c * one(candidate, y + delta) + n_s * one(stable, y)

    y = float(
        eprocess._projected(
            np.asarray(float(n_c)), np.asarray(float(n_s)), np.asarray(candidate), np.asarray(stable), delta
        )
    )
    assert 0.0 < y < 1.0 - delta
    least = distance(y)
    for other in (y * (1 - 1e-4), y * (1 + 1e-4), 0.5 * y):
        if 0.0 < other < 1.0 - delta:
            assert least <= distance(other) + 1e-9 * (1.0 + abs(least))


def test_a_tick_of_one_version_alone_says_nothing() -> None:
    seen = comparison.start()
    for counts in ((10, 10, 0, 0), (0, 0, 50, 7), (0, 0, 0, 0)):
        seen = comparison.advance(seen, eprocess.counts(*counts), tolerance=0.0, max_regression=0.01)
    assert seen.log_worse == pytest.approx(0.0, abs=1e-12)
    assert seen.log_safe == pytest.approx(0.0, abs=1e-12)


@given(
    n=st.integers(1, 60),
    e=st.integers(0, 59),
    stable=st.tuples(st.integers(1, 400), st.integers(0, 20)),
    tolerance=st.sampled_from([0.0, 0.002, 0.05]),
)
def test_one_more_bad_request_never_speaks_for_the_candidate(
    n: int, e: int, stable: tuple[int, int], tolerance: float
) -> None:
    def after(errors: int) -> comparison.Comparison:
        counts = eprocess.counts(n, errors, stable[0], min(stable[1], stable[0]))
        return comparison.advance(comparison.start(), counts, tolerance=tolerance, max_regression=0.1)

    fewer, more = after(min(e, n - 1)), after(min(e, n - 1) + 1)
    assert more.log_worse > fewer.log_worse
    assert more.log_safe < fewer.log_safe


def test_a_larger_tolerance_makes_worse_harder_to_prove() -> None:
    counts = eprocess.counts(200, 12, 1000, 5)
    logs = [
        float(comparison.advance(comparison.start(), counts, tolerance=delta, max_regression=0.1).log_worse)
        for delta in (0.0, 0.005, 0.02, 0.04)
    ]
    assert logs == sorted(logs, reverse=True)
    assert logs[0] > logs[-1]


counts_lists = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 400)).flatmap(
        lambda n: st.tuples(st.just(n[0]), st.integers(0, n[0]), st.just(n[1]), st.integers(0, n[1]))
    ),
    max_size=12,
)


@given(counts_lists, st.sampled_from([0.0, 0.003]))
def test_state_survives_json_bit_for_bit(ticks: list[tuple[int, int, int, int]], tolerance: float) -> None:
    straight, stored = comparison.start(), comparison.dumped(comparison.start())
    for counts in ticks:
        straight = comparison.advance(
            straight, eprocess.counts(*counts), tolerance=tolerance, max_regression=0.01
        )
        again = comparison.advance(
            comparison.of(json.loads(json.dumps(stored))),
            eprocess.counts(*counts),
            tolerance=tolerance,
            max_regression=0.01,
        )
        stored = comparison.dumped(again)
    assert json.dumps(stored) == json.dumps(comparison.dumped(straight))


@given(counts_lists, counts_lists)
def test_what_is_together_is_judged_as_alone(
    one: list[tuple[int, int, int, int]], other: list[tuple[int, int, int, int]]
) -> None:
    length = min(len(one), len(other))
    together = comparison.start((2,))
    alone = [comparison.start(), comparison.start()]
    for pair in zip(one[:length], other[:length], strict=True):
        counts = eprocess.counts(*zip(*pair, strict=True))
        together = comparison.advance(together, counts, tolerance=0.002, max_regression=0.01)
        alone = [
            comparison.advance(seen, eprocess.counts(*mine), tolerance=0.002, max_regression=0.01)
            for seen, mine in zip(alone, pair, strict=True)
        ]
    assert together.log_worse == pytest.approx([float(seen.log_worse) for seen in alone], abs=1e-9)
    assert together.log_safe == pytest.approx([float(seen.log_safe) for seen in alone], abs=1e-9)


@pytest.mark.parametrize("limit", [1e-4, 0.02, 0.3, 0.97])
@pytest.mark.parametrize("n", [1, 7, 40])
def test_budgets_expect_no_gain_on_their_own_side(n: int, limit: float) -> None:
    outcomes = [budget.advance(budget.start(), n, e, above=limit, within=limit) for e in range(n + 1)]
    above = np.array([math.exp(seen.log_above) for seen in outcomes])
    within = np.array([math.exp(seen.log_within) for seen in outcomes])
    for rate in (*RATES, limit):
        if rate <= limit:
            assert float(binomial(n, rate) @ above) <= 1.0 + SLACK
        if rate >= limit:
            assert float(binomial(n, rate) @ within) <= 1.0 + SLACK


def test_a_budget_is_proven_both_ways() -> None:
    kept = budget.advance(budget.start(), 600, 3, above=0.02, within=0.02)
    broken = budget.advance(budget.start(), 600, 40, above=0.02, within=0.02)
    assert kept.log_within > math.log(20) > 0 > kept.log_above
    assert broken.log_above > math.log(1000) > 0 > broken.log_within
    assert budget.of(json.loads(json.dumps(budget.dumped(broken)))).above.tolist() == broken.above.tolist()


@pytest.mark.parametrize("weight", [0.05, 0.5, 0.75])
@pytest.mark.parametrize("n", [1, 9, 40])
def test_the_intended_split_is_expected_to_gain_nothing(n: int, weight: float) -> None:
    gains = []
    for candidate in range(n + 1):
        arms = ArmCounts(requests=n - candidate), ArmCounts(requests=candidate)
        state = sample_ratio.update(sample_ratio.start(), tick(0, *arms, weight=weight))
        gains.append(math.exp(sample_ratio.log_evidence(state)))
    assert float(binomial(n, weight) @ np.array(gains)) == pytest.approx(1.0, abs=1e-12)


def test_a_wrong_split_raises_the_alarm_and_the_right_one_does_not() -> None:
    def after(candidate: int, weight: float | None = 0.1, **more: Any) -> dict[str, Any]:
        state = sample_ratio.start()
        for number in range(200):
            arms = ArmCounts(requests=100 - candidate, **more), ArmCounts(requests=candidate, **more)
            state = sample_ratio.update(state, tick(number, *arms, weight=weight))
        return state

    assert not sample_ratio.alarmed(after(10))
    assert sample_ratio.alarmed(after(13))
    assert "13.00% of requests, 10.00% was meant" in sample_ratio.sentence(after(13))
    for weight in (0.0, 1.0, None, math.nan):
        assert after(13, weight) == sample_ratio.start()
    assert after(13, errors=12) == sample_ratio.start()


def test_tries_are_split_where_they_are_known() -> None:
    arms = (
        ArmCounts(requests=95, tries=90, failed_tries=0),
        ArmCounts(requests=5, tries=10, failed_tries=0),
    )
    assert sample_ratio.update(sample_ratio.start(), tick(0, *arms, weight=0.1))["candidate"] == 10


def test_by_unit_the_units_are_split_anew_at_every_weight() -> None:
    def arm(units: int, failed_tries: int = 0) -> ArmCounts:
        return ArmCounts(requests=units, tries=500, failed_tries=failed_tries)

    def by_unit(end_ms: int, *arms: ArmCounts, weight: float) -> Tick:
        return replace(tick(end_ms, *arms, weight=weight), by_unit=True)

    first = sample_ratio.update(sample_ratio.start(), by_unit(0, arm(80), arm(20), weight=0.1))
    assert (first["candidate"], first["total"]) == (20, 100)
    again = sample_ratio.update(first, by_unit(1, arm(80), arm(20), weight=0.1))
    assert sample_ratio.log_evidence(again) > sample_ratio.log_evidence(first) > 0
    wider = sample_ratio.update(again, by_unit(2, arm(50), arm(50), weight=0.5))
    assert (wider["candidate"], wider["total"]) == (50, 100), "the same clients came back"
    assert sample_ratio.update(again, by_unit(2, arm(80), arm(20, 30), weight=0.1)) == again


BOUNDS = 0.01 * 2.0 ** (np.arange(40) / 8)


@pytest.mark.parametrize(
    ("tolerance", "max_regression", "up", "down"),
    [(0.0, 0.3, 0, 3), (0.09, 0.19, 1, 2), (0.1, 0.1, 2, 1), (2.0 ** (1 / 8) - 1, 2.0 ** (1 / 8) - 1, 1, 1)],
)
def test_factors_are_whole_buckets(tolerance: float, max_regression: float, up: int, down: int) -> None:
    moved = exceedance.shifts(BOUNDS, tolerance=tolerance, max_regression=max_regression)
    assert (moved.tolerance, moved.safe) == (up, (down, down, down, 2 * down))


FINE = 0.001 * 2.0 ** (np.arange(60) / 8)
"""From 1 ms on."""


def test_the_floor_is_the_buckets_that_a_millisecond_holds() -> None:
    moved = exceedance.shifts(FINE, tolerance=0.0, max_regression=0.3)
    for at, floor in enumerate(moved.floor):
        assert FINE[at + floor] - FINE[at] <= exceedance.FLOOR_S * (1 + 1e-6)
        assert at + floor + 1 == len(FINE) or FINE[at + floor + 1] - FINE[at] > exceedance.FLOOR_S
    assert moved.floor[0] == 8
    assert moved.floor[-1] == 0


@pytest.mark.parametrize(("slower_by_s", "is_worse"), [(0.0, False), (0.0008, False), (0.004, True)])
def test_what_no_client_notices_is_not_worse(slower_by_s: float, is_worse: bool) -> None:
    rng = np.random.default_rng(5)
    moved = exceedance.shifts(FINE, tolerance=0.0, max_regression=0.3)

    def times(size: int, more_s: float) -> np.ndarray:
        drawn = rng.lognormal(math.log(0.002), 0.1, size) + more_s
        return np.bincount(np.searchsorted(FINE, drawn), minlength=61).astype(float)

    seen = exceedance.start(61)
    for _ in range(60):
        seen = exceedance.advance(seen, times(500, 0.0), times(500, slower_by_s), moved)
    assert (seen.log_worse > math.log(400)) == is_worse
    assert (seen.log_safe > math.log(20)) != is_worse


def test_edges_come_from_the_past_of_stable_alone() -> None:
    by_bucket = np.zeros(41)
    by_bucket[10], by_bucket[20], by_bucket[25] = 900.0, 60.0, 40.0
    seen = exceedance.learn(exceedance.start(41), by_bucket)
    moved = exceedance.shifts(BOUNDS, tolerance=0.0, max_regression=0.3)
    before = exceedance.edges(seen, moved)
    assert before.at.tolist() == [10, 10, 20, 25]
    slow = np.zeros(41)
    slow[30] = 500.0
    after = exceedance.edges(exceedance.advance(seen, np.zeros(41), slow, moved), moved)
    assert after.at.tolist() == before.at.tolist()


def test_nothing_is_tested_before_stable_is_known() -> None:
    moved = exceedance.shifts(BOUNDS, tolerance=0.0, max_regression=0.3)
    stable, candidate = np.zeros(41), np.zeros(41)
    stable[5], candidate[30] = exceedance.LEARN - 1.0, 50.0
    seen = exceedance.advance(exceedance.start(41), stable, candidate, moved)
    assert seen.log_worse == pytest.approx(0.0, abs=1e-12)
    seen = exceedance.advance(seen, stable, candidate, moved)
    assert seen.log_worse == pytest.approx(0.0, abs=1e-12)
    assert exceedance.advance(seen, stable, candidate, moved).log_worse > 10.0


def test_times_all_in_one_bucket_can_be_safe_and_can_be_worse() -> None:
    moved = exceedance.shifts(BOUNDS, tolerance=0.0, max_regression=0.3)

    def after(bucket: int) -> exceedance.Exceedance:
        stable, candidate = np.zeros(41), np.zeros(41)
        stable[8], candidate[bucket] = 200.0, 20.0
        seen = exceedance.start(41)
        for _ in range(30):
            seen = exceedance.advance(seen, stable, candidate, moved)
        return seen

    assert after(8).log_safe > math.log(20)
    assert after(8).log_worse < 0.0
    assert after(16).log_worse > math.log(1000)
    assert after(16).log_safe < 0.0


def test_quantiles_are_interpolated_within_their_bucket() -> None:
    by_bucket = np.zeros(41)
    by_bucket[9] = 100.0
    found = exceedance.quantile_s(by_bucket, BOUNDS, 0.5)
    assert found == pytest.approx(math.sqrt(BOUNDS[8] * BOUNDS[9]))
    assert exceedance.quantile_s(np.zeros(41), BOUNDS, 0.5) is None
    by_bucket[0] = 1000.0
    assert exceedance.quantile_s(by_bucket, BOUNDS, 0.5) == BOUNDS[0]


def test_the_interval_holds_the_difference_and_narrows() -> None:
    rng = np.random.default_rng(7)
    covered, widths = 0, []
    for _ in range(60):
        seen, inside = comparison.start(), True
        for number in range(120):
            base = 0.08 if 40 <= number < 60 else 0.02
            n_c, n_s = (20, 180) if number < 50 else (100, 100)
            counts = eprocess.counts(n_c, rng.binomial(n_c, base + 0.01), n_s, rng.binomial(n_s, base))
            seen = comparison.advance(seen, counts, tolerance=0.0, max_regression=0.01)
            middle, low, high = interval.difference(seen.past, seen.strata)
            assert middle is not None
            assert low is not None
            assert high is not None
            inside = inside and low <= 0.01 <= high
        covered += inside
        widths.append(high - low)
    assert covered >= 54
    assert max(widths) < 0.03


def test_the_interval_of_a_quantile_needs_enough_requests() -> None:
    by_bucket = np.zeros(41)
    by_bucket[10], by_bucket[20] = 90.0, 10.0
    few = interval.quantile(exceedance.beyond(by_bucket), 100.0, BOUNDS, 0.95)
    many = interval.quantile(exceedance.beyond(100 * by_bucket), 10_000.0, BOUNDS, 0.95)
    assert few[1] is None
    assert many == (BOUNDS[19], BOUNDS[20])


def wandering(runs: int, rise: float, ticks: int) -> comparison.Comparison:
    """Small batches, a base rate that moves for both, a weight that changes; running maxima of the logs."""
    rng = np.random.default_rng(11)
    seen = comparison.start((runs,))
    highest = [np.zeros(runs), np.zeros(runs)]
    for number in range(ticks):
        base = 0.01 + 0.04 * (number % 50 > 40)
        n_c, n_s = rng.poisson(3 + number % 7, runs), rng.poisson(30, runs)
        counts = eprocess.counts(n_c, rng.binomial(n_c, base + rise), n_s, rng.binomial(n_s, base))
        seen = comparison.advance(seen, counts, tolerance=0.0, max_regression=0.02)
        highest = [
            np.maximum(high, log) for high, log in zip(highest, (seen.log_worse, seen.log_safe), strict=True)
        ]
    return comparison.Comparison(seen.past, highest[0], highest[1], seen.strata)


def test_equal_versions_are_seldom_called_worse_however_often_one_looks() -> None:
    highest = wandering(400, 0.0, 300)
    assert np.mean(highest.worse >= math.log(20)) <= 0.05
    assert np.mean(highest.safe >= math.log(20)) >= 0.5


def test_a_regression_at_the_limit_is_seldom_called_safe() -> None:
    highest = wandering(400, 0.02, 300)
    assert np.mean(highest.safe >= math.log(20)) <= 0.08
    assert np.mean(highest.worse >= math.log(200)) >= 0.9


@settings(max_examples=30)
@given(st.floats(0.001, 0.4), st.floats(0.001, 0.4), st.floats(0.5, 40.0), st.sampled_from([0.0, 0.01]))
def test_growth_is_not_negative(candidate: float, stable: float, ratio: float, delta: float) -> None:
    found = eprocess.growth(np.asarray(candidate), np.asarray(stable), np.asarray(ratio), delta)
    assert found >= -1e-12
