"""Every small mistake one could make in verdict.py is noticed: each mutant of its source fails a check."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from control_plane.analysis import catalog, verdict
from control_plane.analysis.base import Evidence
from control_plane.domain.rollout import Step, VerdictKind
from tests.fakes.evidence_ticks import gathered, steady

DEFAULTS = catalog.defaults()
SOURCE = Path(verdict.__file__).read_text()
STEP = Step(weight=0.2, min_requests=100)
FINAL = Step(weight=1.0, min_requests=100)


def silent(one: Any, **fields: None) -> Any:
    return replace(one, stable=replace(one.stable, **fields), candidate=replace(one.candidate, **fields))


@functools.cache
def seen(case: str) -> Evidence:
    """Evidence that is known well: built once, and never changed."""
    made = {
        "good": lambda: steady(70, stable_every=50),
        "early": lambda: steady(14, stable_every=50),
        "nan": lambda: steady(40, stable_every=50, nonfinite=8, candidate_errors=1),
        "nan first": lambda: steady(40, stable_every=50, nonfinite=1, candidate_errors=8),
        "askew": lambda: (replace(one, weight=0.5) for one in steady(70, stable_every=50)),
        "no latency": lambda: (silent(one, latency=None) for one in steady(70, stable_every=50)),
        "unreported": lambda: (
            silent(one, first_byte=None, answers=None, nonfinite=None, outputs=None)
            for one in steady(70, stable_every=50)
        ),
    }
    if case == "by stable alone":
        ticks = steady(70, stable_every=50)
        return gathered(
            DEFAULTS,
            (replace(one, candidate=replace(one.candidate, answers=0, nonfinite=0)) for one in ticks),
        )
    if case == "stopped":
        later = (silent(one, answers=None, nonfinite=None) for one in steady(20, first=40, stable_every=50))
        return gathered(DEFAULTS, later, gathered(DEFAULTS, steady(40, stable_every=50, nonfinite=4)))
    if case.startswith("final"):
        errors = 5 if case == "final bad" else 0
        later = steady(30, first=70, weight=1.0, candidate_errors=errors)
        return gathered(DEFAULTS, later, seen("good"))
    return gathered(DEFAULTS, made[case]())


def judge(module: ModuleType, case: str, step: Step = STEP, **more: Any) -> tuple[VerdictKind, str]:
    evidence = seen(case)
    assert evidence.last_tick_ms is not None
    guardrails = more.pop("guardrails", DEFAULTS)
    more = {"now": evidence.last_tick_ms / 1000.0 + 1.0, "step_requests": 1000, **more}
    given = module.judge(evidence, guardrails, step, **more)
    return given.kind, given.code


def passes_when_safe(module: ModuleType) -> None:
    assert judge(module, "good") == (VerdictKind.PASS, "all-safe")
    assert judge(module, "good", step_requests=100) == (VerdictKind.PASS, "all-safe")


def waits_when_undecided(module: ModuleType) -> None:
    assert judge(module, "early") == (VerdictKind.WAIT, "undecided")


def names_what_needs_longest(module: ModuleType) -> None:
    given = module.judge(seen("early"), DEFAULTS, STEP, now=71.0, step_requests=1000)
    longest = max(reading.more_requests or 0 for reading in given.readings)
    assert given.eta_s == pytest.approx(longest / seen("early").rate)


def fails_by_the_strongest(module: ModuleType) -> None:
    assert judge(module, "nan") == (VerdictKind.FAIL, "nonfinite")
    assert judge(module, "nan first") == (VerdictKind.FAIL, "errors")


def few_requests_wait(module: ModuleType) -> None:
    assert judge(module, "good", step_requests=99) == (VerdictKind.WAIT, "too-few")


def stale_is_no_data(module: ModuleType) -> None:
    for case in ("good", "nan"):
        assert judge(module, case, now=1e6) == (VerdictKind.NO_DATA, "stale")
        assert judge(module, case, now=float("nan")) == (VerdictKind.NO_DATA, "stale")
    for now in (1e6, float("nan")):  # the age of all, which guardrails of their own do not back up
        assert judge(module, "good", now=now, guardrails=()) == (VerdictKind.NO_DATA, "stale")


def what_is_just_in_time_is_fresh(module: ModuleType) -> None:
    assert judge(module, "good", now=350.0 + 60.0)[0] is VerdictKind.PASS
    assert judge(module, "nan", now=200.0 + 60.0)[0] is VerdictKind.FAIL


def nothing_is_no_data(module: ModuleType) -> None:
    empty = replace(seen("good"), last_data_ms=None)
    given = module.judge(empty, DEFAULTS, STEP, now=1.0, step_requests=1000)
    assert (given.kind, given.code) == (VerdictKind.NO_DATA, "no-data")


def a_required_source_is_waited_for(module: ModuleType) -> None:
    assert judge(module, "no latency") == (VerdictKind.NO_DATA, "no-data")


def an_optional_source_is_not(module: ModuleType) -> None:
    assert judge(module, "unreported")[0] is VerdictKind.PASS
    assert judge(module, "by stable alone")[0] is VerdictKind.PASS


def what_has_stopped_decides_nothing(module: ModuleType) -> None:
    assert judge(module, "stopped") == (VerdictKind.NO_DATA, "stale")


def observing_changes_nothing(module: ModuleType) -> None:
    watching = tuple(replace(one, observe_only=True) for one in DEFAULTS)
    assert judge(module, "nan", guardrails=watching)[0] is VerdictKind.PASS
    assert judge(module, "no latency", guardrails=watching)[0] is VerdictKind.PASS


def a_wrong_split_waits(module: ModuleType) -> None:
    assert judge(module, "askew") == (VerdictKind.WAIT, "split")
    assert judge(module, "good")[1] != "split"


def gates_alone_pass(module: ModuleType) -> None:
    assert judge(module, "nan", Step(weight=0.0)) == (VerdictKind.PASS, "gates-only")
    assert judge(module, "good", Step(weight=0.0, mirror=0.1))[0] is VerdictKind.NO_DATA


def full_weight_is_held_to_the_past(module: ModuleType) -> None:
    assert judge(module, "final good", FINAL) == (VerdictKind.PASS, "final-within")
    assert judge(module, "final bad", FINAL) == (VerdictKind.FAIL, "errors")
    askew = replace(
        seen("askew"), states={**seen("askew").states, "_final": seen("final good").states["_final"]}
    )
    given = module.judge(askew, DEFAULTS, FINAL, now=351.0, step_requests=1000)
    assert given.kind is VerdictKind.PASS


def full_weight_does_not_wait_for_proof(module: ModuleType) -> None:
    evidence = gathered(DEFAULTS, steady(1, first=70, weight=1.0), seen("good"))
    given = module.judge(evidence, DEFAULTS, FINAL, now=356.0, step_requests=1000)
    assert given.code == "final-within"
    assert "undecided" in {reading.outcome for reading in given.readings}


def alpha_is_shared(module: ModuleType) -> None:
    at = {
        alpha: module.judge(seen("nan"), DEFAULTS, STEP, now=201.0, step_requests=1, alpha=alpha)
        for alpha in (0.01, 1e-300)
    }
    assert (at[0.01].kind, at[1e-300].kind) == (VerdictKind.FAIL, VerdictKind.WAIT)
    by_name = {reading.name: reading.worse for reading in at[1e-300].readings}
    errors = catalog.get("errors").read(DEFAULTS[0], seen("nan").states["errors"], alpha=1e-300 * 0.5)
    assert by_name["errors"] == pytest.approx(errors.worse, rel=1e-12)


Check = Callable[[ModuleType], None]
MUTANTS: tuple[tuple[str, str, Check], ...] = (
    ("if not step.measures:", "if step.measures:", gates_alone_pass),
    ("if age_s is None:\n", "if age_s is not None:\n", nothing_is_no_data),
    ("if not age_s <= stale_after_s:", "if age_s > stale_after_s:", stale_is_no_data),
    ("if not age_s <= stale_after_s:", "if not age_s < stale_after_s:", what_is_just_in_time_is_fresh),
    ("_overall_no_data(age_s, stale_after_s, now) or ", "", stale_is_no_data),
    ("one.age_s is not None and one.age_s <= stale_after_s", "one.age_s is not None",
     what_has_stopped_decides_nothing),
    ("_failed(fresh, now)\n        or ", "", fails_by_the_strongest),
    ("or _split(evidence, step, now)\n", "\n", a_wrong_split_waits),
    ("or _missing(judging, stale_after_s, now)\n", "\n", a_required_source_is_waited_for),
    ("or _too_few(evidence, step, step_requests, now)\n", "\n", few_requests_wait),
    ("or _undecided(evidence, judging, step, now)\n", "\n", waits_when_undecided),
    ("if one.reading.observe_only or ", "if ", observing_changes_nothing),
    ("return one.required or measured", "return True", an_optional_source_is_not),
    ("one.age_s is not None and one.reading.outcome != readings.NO_DATA", "one.age_s is not None",
     an_optional_source_is_not),
    ("return one.required or measured", "return measured",
     a_required_source_is_waited_for),
    ("one.reading.outcome == readings.WORSE", "one.reading.outcome != readings.SAFE", waits_when_undecided),
    ("strongest = max(worse", "strongest = min(worse", fails_by_the_strongest),
    ("kind=VerdictKind.FAIL", "kind=VerdictKind.WAIT", fails_by_the_strongest),
    ("step.is_final or not sample_ratio.alarmed(state)", "not sample_ratio.alarmed(state)",
     full_weight_is_held_to_the_past),
    ("or not sample_ratio.alarmed(state)", "or sample_ratio.alarmed(state)", a_wrong_split_waits),
    ("if not one.age_s <= stale_after_s:", "if False:", what_has_stopped_decides_nothing),
    ("if step_requests >= step.min_requests:", "if step_requests > step.min_requests:", passes_when_safe),
    ("one.reading.outcome != readings.SAFE", "one.reading.outcome == readings.WORSE", waits_when_undecided),
    ("if step.is_final or not open_:", "if not open_:", full_weight_does_not_wait_for_proof),
    ("longest = max(open_", "longest = min(open_", names_what_needs_longest),
    ("if not metric.applies(step):", "if metric.applies(step):", passes_when_safe),
    ("if not metric.applies(step):", "if False:", passes_when_safe),
    ("alpha=alpha * guardrail.alpha_share", "alpha=alpha", alpha_is_shared),
    ("now - at_ms / 1000.0", "0.0 * now", stale_is_no_data),
    ("if step.is_final:\n        age_s", "if False:\n        age_s", full_weight_is_held_to_the_past),
    ("eta_s = more_requests / rate", "eta_s = more_requests * rate", names_what_needs_longest),
)  # fmt: skip
CHECKS = (
    passes_when_safe,
    waits_when_undecided,
    names_what_needs_longest,
    fails_by_the_strongest,
    few_requests_wait,
    stale_is_no_data,
    what_is_just_in_time_is_fresh,
    nothing_is_no_data,
    a_required_source_is_waited_for,
    an_optional_source_is_not,
    what_has_stopped_decides_nothing,
    observing_changes_nothing,
    a_wrong_split_waits,
    gates_alone_pass,
    full_weight_is_held_to_the_past,
    full_weight_does_not_wait_for_proof,
    alpha_is_shared,
)


def mutated(old: str, new: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """verdict.py with every *old* replaced by *new*."""
    assert old in SOURCE, f"verdict.py has changed: {old!r} is not in it"
    module = ModuleType("verdict_mutant")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # dataclasses look their module up
    exec(compile(SOURCE.replace(old, new), "verdict_mutant.py", "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_real_one_passes(check: Check) -> None:
    check(verdict)


@pytest.mark.parametrize(("old", "new", "check"), MUTANTS)
def test_a_mutant_is_killed(old: str, new: str, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    module = mutated(old, new, monkeypatch)
    with pytest.raises((AssertionError, TypeError, ValueError)):
        check(module)


def test_every_check_kills_something() -> None:
    assert {check for _, _, check in MUTANTS} == set(CHECKS)
