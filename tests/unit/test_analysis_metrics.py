"""Guardrails: what every one of them does with no data, broken data and good data, and what each is for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from control_plane.analysis import catalog, evidence, readings
from control_plane.analysis.base import ArmCounts, Metric, Pairs, Reading, Tick
from control_plane.analysis.metrics import outputs
from control_plane.domain.rollout import Guardrail, Step
from control_plane.errors import InvalidInputError
from tests.fakes.evidence_ticks import BOUNDS, arm, gathered, histogram, steady, tick

ALPHA = 0.001
SPLIT = Step(weight=0.2)
MIRROR = Step(weight=0.0, mirror=0.2)
every_metric = pytest.mark.parametrize("metric", catalog.metrics(), ids=lambda metric: metric.name)


def reading(metric: Metric, ticks: list[Tick], guardrail: Guardrail | None = None) -> Reading:
    guardrail = guardrail or metric.default
    state = metric.start(guardrail)
    for one in ticks:
        state = json.loads(json.dumps(metric.update(guardrail, state, one)))
    return metric.read(guardrail, state, alpha=ALPHA)


def silent(one: Tick) -> Tick:
    """A tick in which no source said anything but how many requests there were."""
    return replace(one, stable=ArmCounts(), candidate=ArmCounts(), pairs=None)


def mirrored(count: int, disagreed: int, nonfinite: int = 0) -> list[Tick]:
    return [
        tick(
            number,
            arm(100),
            replace(arm(20, nonfinite=nonfinite), requests=0, tries=0, errors=0, failed_tries=0),
            weight=0.0,
            pairs=Pairs(compared=20, disagreed=disagreed),
        )
        for number in range(count)
    ]


def test_catalogue_names_every_module_on_disk() -> None:
    folder = Path(catalog.__file__).parent / "metrics"
    assert {module.rpartition(".")[2] for module in catalog.MODULES} == {
        path.stem for path in folder.glob("*.py") if path.stem != "__init__"
    }


def test_unknown_guardrail_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"known guardrails are errors, tries, .*nonfinite"):
        catalog.get("vibes")


def test_shares_of_alpha_and_of_the_last_guard_sum_to_one() -> None:
    shares = sum(guardrail.alpha_share for guardrail in catalog.defaults())
    assert shares + evidence.slo_guard.SHARE == pytest.approx(1.0)


@every_metric
def test_metric_is_named_as_its_guardrail_and_its_file(metric: Metric) -> None:
    assert catalog.get(metric.name) is metric
    assert metric.default.name == metric.name
    assert f"control_plane.analysis.metrics.{metric.name}" in catalog.MODULES
    assert metric.applies(SPLIT) or metric.applies(MIRROR)
    assert not metric.applies(Step(weight=1.0))
    assert not metric.applies(Step(weight=0.0))


@every_metric
def test_no_data_is_told_and_proves_nothing(metric: Metric) -> None:
    found = reading(metric, [silent(one) for one in steady(5)])
    assert found.outcome == readings.NO_DATA
    assert (found.worse, found.safe) == (0.0, 0.0)
    assert found.figure.candidate is None
    assert metric.start(metric.default)["at"] is None


@every_metric
def test_counts_that_make_no_sense_change_nothing(metric: Metric) -> None:
    good = gathered((metric.default,), [*steady(3), *mirrored(3, 0)]).states[metric.name]
    nonsense = ArmCounts(
        requests=5, errors=9, tries=5, failed_tries=-1, latency=(-1,) * 65, first_byte=(1, 2),
        answers=3, nonfinite=4, outputs={"cat": -2},
    )  # fmt: skip
    broken = tick(9, nonsense, nonsense, pairs=Pairs(compared=2, disagreed=3))
    assert metric.update(metric.default, good, broken) == good


@every_metric
def test_update_leaves_the_state_it_was_given(metric: Metric) -> None:
    state = metric.start(metric.default)
    before = json.dumps(state)
    after = state
    for one in [*steady(4), *mirrored(4, 1)]:
        after = metric.update(metric.default, after, one)
    assert json.dumps(state) == before
    assert after != state


@every_metric
def test_observing_only_is_passed_on(metric: Metric) -> None:
    assert reading(metric, [], replace(metric.default, observe_only=True)).observe_only


@every_metric
def test_few_requests_decide_nothing(metric: Metric) -> None:
    found = reading(metric, mirrored(1, 0) if metric.name == "disagreement" else list(steady(2)))
    assert found.outcome in (readings.UNDECIDED, readings.NO_DATA)


@every_metric
def test_equal_versions_become_safe(metric: Metric) -> None:
    ticks = mirrored(60, 0) if metric.name == "disagreement" else list(steady(100, stable_every=50))
    found = reading(metric, ticks)
    assert found.outcome == readings.SAFE, found
    assert found.safe == 1.0
    assert found.more_requests is None
    assert "excluded" in found.sentence


BAD = {
    "errors": {"candidate_errors": 2},
    "tries": {"candidate_errors": 2},
    "latency": {"slowdown": 1.5},
    "first_byte": {"slowdown": 1.5},
    "nonfinite": {"nonfinite": 1},
}


@pytest.mark.parametrize("name", BAD)
def test_a_regression_is_called_worse_with_both_values(name: str) -> None:
    found = reading(catalog.get(name), list(steady(40, **BAD[name])))  # type: ignore[arg-type]
    assert found.outcome == readings.WORSE
    assert found.worse == 1.0
    assert found.log_evidence > 6.9
    assert "against" in found.sentence
    assert found.figure.difference is not None
    assert found.figure.difference > 0.0


def test_sentences_have_values_and_units() -> None:
    ticks = list(steady(40, candidate_errors=2, slowdown=1.5))
    assert reading(catalog.get("errors"), ticks).sentence == (
        "server errors: candidate 10 % against 0.62 % of stable"
    )
    said = reading(catalog.get("latency"), ticks).sentence
    assert said.startswith("latency: 95 % quantile of the candidate 1")
    assert said.count(" ms") == 2


def test_failed_tries_are_seen_behind_answers_that_were_saved() -> None:
    saved = replace(arm(20), failed_tries=5)
    ticks = [tick(number, arm(80), saved) for number in range(20)]
    assert reading(catalog.get("errors"), ticks).outcome != readings.WORSE
    assert reading(catalog.get("tries"), ticks).outcome == readings.WORSE


def test_a_tolerance_forgives_what_lies_within_it() -> None:
    ticks = list(steady(60, slowdown=1.1))
    assert reading(catalog.get("latency"), ticks).log_evidence > 0.5
    tolerant = replace(catalog.get("latency").default, tolerance=0.2)
    assert reading(catalog.get("latency"), ticks, tolerant).log_evidence < 0.0


def test_tester_requests_at_weight_0_and_the_last_step_are_no_comparison() -> None:
    for weight in (0.0, 1.0):
        ticks = [tick(number, arm(80), arm(20, 20, slowdown=3.0), weight=weight) for number in range(30)]
        for name in ("errors", "latency", "outputs", "nonfinite"):
            assert reading(catalog.get(name), ticks).worse == 0.0


def test_other_buckets_start_latency_anew() -> None:
    metric = catalog.get("latency")
    state = gathered((metric.default,), steady(5)).states["latency"]
    other = tuple(2.0 * bound for bound in BOUNDS)
    changed = metric.update(metric.default, state, replace(tick(9, arm(80), arm(20)), latency_bounds_s=other))
    assert changed["bounds_s"] == list(other)
    assert sum(changed["stable"]) == 80


def test_copies_are_judged_against_the_budget() -> None:
    metric = catalog.get("disagreement")
    assert reading(metric, mirrored(60, 3)).outcome == readings.WORSE
    within = reading(metric, mirrored(60, 0))
    assert within.candidate_n == 1200
    assert within.sentence.endswith("a share of 2.0 % or more is excluded (0 % of 1200 copies, budget 2.0 %)")
    near = reading(metric, mirrored(3, 0))
    assert near.outcome == readings.UNDECIDED
    assert near.more_requests is not None
    assert 20 < near.more_requests < 600


def test_nan_in_answers_to_copies_counts() -> None:
    assert reading(catalog.get("nonfinite"), mirrored(40, 0, nonfinite=2)).outcome == readings.WORSE


def drifted(counts: dict[str, int], number: int) -> Tick:
    return tick(number, arm(80), replace(arm(20), outputs=counts))


def test_a_class_that_takes_over_is_drift() -> None:
    ticks = [drifted({"cat": 15, "dog": 5}, number) for number in range(30)]
    found = reading(catalog.get("outputs"), ticks)
    assert found.outcome == readings.WORSE
    assert found.figure.unit == "PSI"
    assert "cat is 75 % of the candidate's answers against 25 % of stable's" in found.sentence


def test_a_class_that_nobody_knew_is_drift() -> None:
    ticks = [drifted({"cat": 10, "unicorn": 10}, number) for number in range(30)]
    found = reading(catalog.get("outputs"), ticks)
    assert found.outcome == readings.WORSE
    assert outputs.OTHER in found.sentence


def test_a_small_shift_is_proven_but_not_worse() -> None:
    ticks = [drifted({"cat": 7, "dog": 5, "bird": 4, "fish": 4}, number) for number in range(500)]
    found = reading(catalog.get("outputs"), ticks)
    assert found.log_evidence > 7.0
    assert found.figure.difference is not None
    assert found.figure.difference < outputs.PSI_LIMIT
    assert found.outcome != readings.WORSE


def test_bins_are_few_and_the_rare_are_merged() -> None:
    many = {f"class-{number:03d}": 4 + number % 3 for number in range(60)} | {"rare": 1, "often": 100}
    metric = catalog.get("outputs")
    ticks = [tick(n, replace(arm(80), outputs=many), replace(arm(20), outputs=many)) for n in range(3)]
    state = gathered((metric.default,), ticks).states["outputs"]
    assert len(state["bins"]) <= outputs.MOST_BINS
    assert state["bins"][0] == "often"
    assert state["bins"][-1] == outputs.OTHER
    assert "rare" not in state["bins"]


def test_labels_without_end_are_not_kept() -> None:
    metric = catalog.get("outputs")
    state = metric.start(metric.default)
    few = {f"id-{number}": 0 for number in range(5)}
    for n in range(3):
        told = {f"id-{n}-{number}": 1 for number in range(60)} | few
        state = metric.update(metric.default, state, tick(n, replace(arm(0), outputs=told), arm(0)))
    assert len(state["labels"]) == 180
    told = {f"more-{number}": 1 for number in range(19)}
    state = metric.update(metric.default, state, tick(4, replace(arm(0), outputs=told), arm(0)))
    assert sum(state["labels"].values()) == 199
    assert "learning" in metric.read(metric.default, state, alpha=ALPHA).sentence


def test_estimates_lead_to_the_decision() -> None:
    """What is said to be needed at a third of the way is about what it took."""
    for name in ("errors", "latency"):
        took = None
        early = None
        for count in range(1, 120):
            found = reading(catalog.get(name), list(steady(count, stable_every=200)))
            if found.outcome == readings.UNDECIDED and found.safe > 0.3 and early is None:
                early = (found.candidate_n, found.more_requests)
            if found.outcome == readings.SAFE:
                took = found.candidate_n
                break
        assert took is not None
        assert early is not None
        assert early[1] is not None
        assert 0.4 * took < early[0] + early[1] < 2.5 * took


def test_histograms_of_the_fake_hold_every_request() -> None:
    assert sum(histogram(137)) == 137
