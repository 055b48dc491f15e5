"""Verdicts: tables of what was seen and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from control_plane.analysis import catalog, evidence, slo_guard, verdict
from control_plane.analysis.base import ArmCounts, Evidence, Pairs, Tick, Verdict
from control_plane.domain.rollout import Guardrail, Step, VerdictKind
from tests.fakes.evidence_ticks import arm, gathered, histogram, steady, tick

DEFAULTS = catalog.defaults()
STEP = Step(weight=0.2, min_requests=100)
FINAL = Step(weight=1.0, min_requests=50)
GOOD = {"stable_every": 50}


def judge(seen: Evidence, step: Step = STEP, guardrails: Any = DEFAULTS, **more: Any) -> Verdict:
    now = (seen.last_tick_ms or 0) / 1000.0 + 2.0
    return verdict.judge(
        seen, guardrails, step, **{"now": now, "step_requests": seen.candidate_requests, **more}
    )


def only_observing(*names: str) -> tuple[Guardrail, ...]:
    return tuple(replace(guardrail, observe_only=guardrail.name in names) for guardrail in DEFAULTS)


def without(one: Tick, **fields: None) -> Tick:
    return replace(one, stable=replace(one.stable, **fields), candidate=replace(one.candidate, **fields))


def test_all_safe_passes() -> None:
    found = judge(gathered(DEFAULTS, steady(100, **GOOD)))
    assert (found.kind, found.code) == (VerdictKind.PASS, "all-safe")
    assert {reading.name for reading in found.readings} == set(catalog.names())


def test_worse_fails_by_its_name_and_with_its_sentence() -> None:
    found = judge(gathered(DEFAULTS, steady(60, nonfinite=2, **GOOD)))
    assert (found.kind, found.code) == (VerdictKind.FAIL, "nonfinite")
    assert found.sentence == "NaN or infinite outputs: candidate 10 % against 0 % of stable"


def test_the_strongest_evidence_gives_the_name() -> None:
    found = judge(gathered(DEFAULTS, steady(60, nonfinite=10, candidate_errors=2, **GOOD)))
    assert found.code == "nonfinite"
    found = judge(gathered(DEFAULTS, steady(60, nonfinite=2, candidate_errors=10, **GOOD)))
    assert found.code in {"errors", "tries"}


def test_neither_waits_for_what_needs_longest() -> None:
    found = judge(gathered(DEFAULTS, steady(14, **GOOD)))
    assert (found.kind, found.code) == (VerdictKind.WAIT, "undecided")
    longest = max(reading.more_requests or 0 for reading in found.readings)
    assert f"about {longest} more requests" in found.sentence
    assert found.eta_s == pytest.approx(longest / 4.0)


def test_too_few_requests_at_this_step_wait() -> None:
    seen = gathered(DEFAULTS, steady(100, **GOOD))
    found = judge(seen, step_requests=40)
    assert (found.kind, found.code) == (VerdictKind.WAIT, "too-few")
    assert found.eta_s == pytest.approx(60 / 4.0)
    assert judge(seen, step_requests=100).kind is VerdictKind.PASS


@pytest.mark.parametrize("step", [STEP, FINAL, Step(weight=0.0, mirror=0.5)])
def test_nothing_at_all_is_no_data(step: Step) -> None:
    for seen in (evidence.start(DEFAULTS), gathered(DEFAULTS, [tick(0, ArmCounts(), ArmCounts())])):
        found = judge(seen, step, step_requests=500)
        assert (found.kind, found.code) == (VerdictKind.NO_DATA, "no-data")


@pytest.mark.parametrize("errors", [0, 20])
def test_old_data_neither_promotes_nor_rolls_back(errors: int) -> None:
    seen = gathered(DEFAULTS, steady(100, candidate_errors=errors, **GOOD))
    assert judge(seen).kind in (VerdictKind.PASS, VerdictKind.FAIL)
    for now in (500.0 + 61.0, float("nan"), 1e12):
        found = judge(seen, now=now)
        assert (found.kind, found.code) == (VerdictKind.NO_DATA, "stale")
    assert judge(seen, now=500.0 + 60.0).kind is not VerdictKind.NO_DATA
    assert judge(seen, now=500.0 + 61.0, stale_after_s=70.0).kind is not VerdictKind.NO_DATA


def test_a_source_that_never_spoke_is_no_data_where_it_must() -> None:
    for name, fields in (("tries", ("tries", "failed_tries")), ("latency", ("latency",))):
        silent = [without(one, **dict.fromkeys(fields)) for one in steady(100, **GOOD)]
        found = judge(gathered(DEFAULTS, silent))
        assert (found.kind, found.code) == (VerdictKind.NO_DATA, "no-data")
        assert catalog.get(name).title in found.sentence


def test_what_a_model_does_not_report_is_not_waited_for() -> None:
    fields = dict.fromkeys(("first_byte", "answers", "nonfinite", "outputs"))
    silent = [without(one, **fields) for one in steady(100, **GOOD)]
    assert judge(gathered(DEFAULTS, silent)).kind is VerdictKind.PASS


def test_a_source_that_has_stopped_is_stale_though_others_go_on() -> None:
    seen = gathered(DEFAULTS, steady(100, **GOOD))
    later = [without(one, answers=None, nonfinite=None) for one in steady(20, first=100, **GOOD)]
    found = judge(gathered(DEFAULTS, later, seen))
    assert (found.kind, found.code) == (VerdictKind.NO_DATA, "stale")
    assert "NaN" in found.sentence


def test_where_all_sessions_were_counted_their_requests_keep_it_fresh() -> None:
    """What is silent altogether is stale all the same."""

    def of_known(one: Tick, repeated: int) -> Tick:
        nobody = (0,) * len(histogram(0))
        known = {"requests": 0, "errors": 0, "latency": nobody, "first_byte": nobody}
        arms = (replace(each, **known) for each in (one.stable, one.candidate))  # type: ignore[arg-type]  by name
        return replace(one, stable=next(arms), candidate=next(arms), by_unit=True, repeated=repeated)

    counted = gathered(DEFAULTS, steady(100, **GOOD))
    quiet = list(steady(40, first=100, **GOOD))
    fresh = gathered(DEFAULTS, [of_known(one, repeated=100) for one in quiet], counted)
    silent = gathered(DEFAULTS, [of_known(one, repeated=0) for one in quiet], counted)
    assert judge(fresh).code == "all-safe"
    assert (judge(silent).kind, judge(silent).code) == (VerdictKind.NO_DATA, "stale")
    assert fresh.states["errors"] == {**silent.states["errors"], "at": fresh.last_tick_ms}
    never = gathered(DEFAULTS, [of_known(one, repeated=100) for one in quiet])
    assert judge(never).code == "no-data"


def test_a_source_that_has_stopped_hides_no_failure_of_another() -> None:
    seen = gathered(DEFAULTS, steady(20, **GOOD))
    later = [without(one, latency=None) for one in steady(40, first=20, candidate_errors=4, stable_every=50)]
    assert judge(gathered(DEFAULTS, later, seen)).kind is VerdictKind.FAIL


def test_worse_of_a_source_that_has_stopped_rolls_nothing_back() -> None:
    seen = gathered(DEFAULTS, steady(40, nonfinite=4, **GOOD))
    assert judge(seen).kind is VerdictKind.FAIL
    later = [without(one, answers=None, nonfinite=None) for one in steady(20, first=40, **GOOD)]
    assert judge(gathered(DEFAULTS, later, seen)).kind is VerdictKind.NO_DATA


def test_observing_only_neither_fails_nor_holds_up() -> None:
    seen = gathered(DEFAULTS, steady(100, nonfinite=4, **GOOD))
    found = judge(seen, guardrails=only_observing("nonfinite"))
    assert found.kind is VerdictKind.PASS
    assert {reading.outcome for reading in found.readings if reading.observe_only} == {"worse"}
    silent = [without(one, latency=None) for one in steady(100, **GOOD)]
    assert judge(gathered(DEFAULTS, silent), guardrails=only_observing("latency")).kind is VerdictKind.PASS


def test_a_wrong_split_waits_and_a_failure_comes_before_it() -> None:
    askew = [replace(one, weight=0.5) for one in steady(100, **GOOD)]
    found = judge(gathered(DEFAULTS, askew))
    assert (found.kind, found.code) == (VerdictKind.WAIT, "split")
    assert "20.00% of requests, 50.00% was meant" in found.sentence
    failing = [replace(one, weight=0.5) for one in steady(100, nonfinite=5, **GOOD)]
    assert judge(gathered(DEFAULTS, failing)).kind is VerdictKind.FAIL


def test_a_step_without_traffic_has_its_gates_alone() -> None:
    found = judge(evidence.start(DEFAULTS), Step(weight=0.0))
    assert (found.kind, found.code) == (VerdictKind.PASS, "gates-only")


def test_copies_alone_are_judged_by_what_they_can_show() -> None:
    step = Step(weight=0.0, mirror=0.2)

    def copies(disagreed: int) -> Evidence:
        silent = ArmCounts(answers=20, nonfinite=0, outputs=arm(20).outputs)
        pairs = Pairs(compared=20, disagreed=disagreed)
        return gathered(DEFAULTS, [tick(n, arm(100), silent, weight=0.0, pairs=pairs) for n in range(60)])

    good = judge(copies(0), step, step_requests=1200)
    assert good.kind is VerdictKind.PASS
    outcomes = {reading.name: reading.outcome for reading in good.readings}
    assert outcomes["errors"] == outcomes["latency"] == "not_applicable"
    assert outcomes["disagreement"] == "safe"
    bad = judge(copies(4), step, step_requests=1200)
    assert (bad.kind, bad.code) == (VerdictKind.FAIL, "disagreement")
    no_copies = gathered(DEFAULTS, [tick(n, arm(100), arm(0), weight=0.0) for n in range(60)])
    assert judge(no_copies, step, step_requests=1200).kind is VerdictKind.NO_DATA


def at_full_weight(**more: Any) -> Evidence:
    before = gathered(DEFAULTS, steady(100, **GOOD))
    return gathered(DEFAULTS, steady(60, first=100, weight=1.0, **more), before)


def test_full_weight_passes_while_the_candidate_stays_within() -> None:
    found = judge(at_full_weight(), FINAL, step_requests=6000)
    assert (found.kind, found.code) == (VerdictKind.PASS, "final-within")
    assert {"errors", "latency", "nonfinite"} <= {reading.name for reading in found.readings}
    assert judge(at_full_weight(), FINAL, step_requests=3).code == "too-few"


@pytest.mark.parametrize(
    ("name", "more"),
    [("errors", {"candidate_errors": 4}), ("latency", {"slowdown": 2.0}), ("nonfinite", {"nonfinite": 4})],
)
def test_full_weight_fails_beyond_what_stable_did(name: str, more: dict[str, Any]) -> None:
    guardrails = tuple(guardrail for guardrail in DEFAULTS if guardrail.name == name)
    found = judge(at_full_weight(**more), FINAL, guardrails, step_requests=6000)
    assert (found.kind, found.code) == (VerdictKind.FAIL, name)
    assert "by what stable did before" in found.sentence


def test_full_weight_asks_for_fresh_data() -> None:
    found = judge(at_full_weight(), FINAL, step_requests=6000, now=1e6)
    assert (found.kind, found.code) == (VerdictKind.NO_DATA, "stale")


def test_full_weight_without_a_past_is_held_to_a_usual_rate() -> None:
    def after(errors: int) -> Verdict:
        made = steady(60, weight=1.0, candidate_errors=errors)
        return judge(gathered(DEFAULTS, made), FINAL, step_requests=6000)

    assert after(0).kind is VerdictKind.PASS
    assert after(6).kind is VerdictKind.FAIL


def test_a_preview_before_the_switch_teaches_what_stable_does() -> None:
    preview = gathered(DEFAULTS, [tick(n, arm(100, 3), arm(0), weight=0.0) for n in range(40)])
    state = gathered(DEFAULTS, steady(60, first=40, weight=1.0, candidate_errors=3), preview)
    assert judge(state, FINAL, step_requests=6000).kind is VerdictKind.PASS
    bars = state.states[evidence.FINAL]["bars"]
    assert bars["errors"]["limit"] == pytest.approx(0.04, abs=0.001)
    assert bars["latency"]["edge_s"] is not None
    assert slo_guard.read({"bars": {}}, DEFAULTS, alpha=0.01) == ()


def test_no_guardrails_pass_on_fresh_data_alone() -> None:
    assert judge(gathered((), steady(20)), guardrails=()).kind is VerdictKind.PASS
    assert judge(evidence.start(()), guardrails=()).kind is VerdictKind.NO_DATA
