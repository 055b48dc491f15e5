"""Evidence: counted once, the same bits after any crash, and blind to who counts it and when."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.analysis import catalog, evidence, hard_failures
from control_plane.analysis.base import ArmCounts, Evidence, Pairs, Tick
from control_plane.domain.rollout import Guardrail
from tests.fakes.evidence_ticks import BOUNDS, arm, gathered, steady, tick

DEFAULTS = catalog.defaults()


def stored(seen: Evidence) -> Evidence:
    """As the registry gives it back."""
    return evidence.from_json(json.loads(json.dumps(evidence.to_json(seen))))


def bits(seen: Evidence) -> str:
    return json.dumps(evidence.to_json(seen), sort_keys=True)


@st.composite
def arms(draw: st.DrawFn) -> ArmCounts:
    requests = draw(st.integers(0, 60))
    errors = draw(st.integers(0, requests))
    if draw(st.booleans()):
        return ArmCounts(requests=requests, errors=errors)
    slowdown = draw(st.sampled_from([0.5, 1.0, 1.7, 40.0]))
    return replace(
        arm(requests, errors, slowdown=slowdown, nonfinite=draw(st.integers(0, requests))),
        outputs=draw(st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 40))),
    )


@st.composite
def ticks(draw: st.DrawFn) -> list[Tick]:
    weights = st.sampled_from([0.0, 0.05, 0.5, 1.0, None, math.nan])
    compared = st.integers(0, 30)
    return [
        replace(
            tick(number, draw(arms()), draw(arms()), weight=draw(weights)),
            pairs=draw(st.none() | compared.map(lambda n: Pairs(compared=n, disagreed=n // 3))),
            span_s=draw(st.sampled_from([5.0, 0.0, math.nan, 60.0])),
        )
        for number in range(draw(st.integers(0, 8)))
    ]


@settings(max_examples=40, deadline=None)
@given(ticks(), st.data())
def test_replay_after_any_crash_gives_the_same_bits(made: list[Tick], data: st.DataObject) -> None:
    """The controller dies between ticks, reads what it stored, and is given some ticks again."""
    straight = gathered(DEFAULTS, made)
    seen = evidence.start(DEFAULTS)
    for number, one in enumerate(made):
        seen = evidence.advance(stored(seen), one, DEFAULTS)
        if data.draw(st.booleans()):
            begin = data.draw(st.integers(0, number))
            seen = gathered(DEFAULTS, made[begin : number + 1], stored(seen))
    assert bits(seen) == bits(straight)


@settings(max_examples=40, deadline=None)
@given(ticks())
def test_numbers_stay_finite_and_json(made: list[Tick]) -> None:
    written = json.dumps(evidence.to_json(gathered(DEFAULTS, made)), allow_nan=False)
    assert bits(evidence.from_json(json.loads(written))) == bits(gathered(DEFAULTS, made))


@settings(max_examples=20, deadline=None)
@given(ticks(), st.permutations(DEFAULTS))
def test_the_order_of_guardrails_means_nothing(made: list[Tick], order: list[Guardrail]) -> None:
    assert bits(gathered(order, made)) == bits(gathered(DEFAULTS, made))


@settings(max_examples=20, deadline=None)
@given(ticks(), st.integers(0, 10**10))
def test_the_time_of_day_means_nothing(made: list[Tick], later_ms: int) -> None:
    def timeless(seen: Evidence) -> str:
        state = evidence.to_json(seen)
        del state["last_tick_ms"], state["last_data_ms"]
        for one in state["states"].values():
            one.pop("at", None)
        return json.dumps(state, sort_keys=True)

    moved = [replace(one, end_ms=one.end_ms + later_ms) for one in made]
    assert timeless(gathered(DEFAULTS, made)) == timeless(gathered(DEFAULTS, moved))


def test_a_tick_counts_once_and_none_from_before() -> None:
    made = list(steady(3))
    seen = gathered(DEFAULTS, made)
    for late in (*made, replace(made[-1], candidate=arm(20, 20))):
        assert evidence.advance(seen, late, DEFAULTS) is seen


def test_advance_leaves_what_it_was_given() -> None:
    seen = gathered(DEFAULTS, steady(3))
    before = copy.deepcopy(seen)
    evidence.advance(seen, tick(9, arm(80), arm(20, 3)), DEFAULTS)
    assert seen == before


def test_what_is_told_of_all_guardrails_together() -> None:
    seen = gathered(DEFAULTS, steady(4))
    assert (seen.ticks, seen.candidate_requests, seen.stable_requests) == (4, 80, 320)
    assert seen.last_tick_ms == seen.last_data_ms == 20_000
    assert seen.rate == pytest.approx(4.0)
    idle = evidence.advance(seen, tick(4, arm(0), arm(0)), DEFAULTS)
    assert (idle.last_tick_ms, idle.last_data_ms) == (25_000, 20_000)
    assert idle.rate == pytest.approx(4.0 * math.exp(-5 / 60))


def test_copies_count_in_the_rate() -> None:
    made = tick(0, arm(100), arm(0), weight=0.0, pairs=Pairs(compared=15, disagreed=0))
    assert gathered(DEFAULTS, [made]).rate == pytest.approx(3.0)


def test_a_tick_in_which_the_weight_changed_proves_nothing() -> None:
    seen = gathered(DEFAULTS, steady(3))
    after = evidence.advance(seen, tick(3, arm(80), arm(20, 20), weight=None), DEFAULTS)
    assert after.states == seen.states
    assert after.candidate_requests == seen.candidate_requests + 20


def test_a_guardrail_that_is_new_to_the_state_starts_then() -> None:
    seen = gathered(DEFAULTS[:1], steady(3))
    after = evidence.advance(stored(seen), tick(3, arm(80), arm(20)), DEFAULTS)
    assert set(after.states) >= {guardrail.name for guardrail in DEFAULTS}


def failing(requests: int, errors: int, stable: ArmCounts) -> Tick:
    return tick(0, stable, ArmCounts(requests=requests, errors=errors))


@pytest.mark.parametrize(
    ("made", "failed"),
    [
        ([failing(20, 20, arm(80, 2))], True),
        ([failing(10, 10, arm(40)), failing(10, 10, arm(40))], True),
        ([failing(20, 19, arm(80))], False),
        ([failing(19, 19, arm(80))], False),
        ([failing(20, 20, arm(80, 60))], False),
        ([failing(20, 20, arm(80, 39))], True),
        ([failing(20, 20, arm(0))], True),
        ([tick(0, arm(100), ArmCounts(requests=1, tries=25, failed_tries=25))], True),
        ([tick(0, arm(100, 70), ArmCounts(requests=1, tries=25, failed_tries=25))], False),
        ([tick(0, arm(100), ArmCounts())], False),
        ([], False),
    ],
)
def test_nothing_but_errors_is_a_hard_failure(made: list[Tick], failed: bool) -> None:
    assert (hard_failures.all_failing(made) is not None) is failed


def test_the_bounds_of_the_fake_grow_as_those_of_the_gateway() -> None:
    assert BOUNDS[8] == pytest.approx(2 * BOUNDS[0])
