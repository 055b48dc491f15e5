"""What is accepted as an optimisation, and why not."""

from __future__ import annotations

import statistics
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain import acceptance, binomial
from control_plane.domain.optimization import Answers, Budget, Conditions, Footprint, Report, Timing
from control_plane.optimization import measure_process, measuring
from control_plane.optimization.messages import Timed

BUDGET = Budget()


def answers(agreed: int, rows: int, **given_: Any) -> Answers:
    bound = binomial.lower(agreed, rows, 0.05) if rows else 0.0
    values = {"max_error": 0.0, "mean_error": 0.0, "min_cosine": 1.0, "mean_cosine": 1.0, **given_}
    return Answers(rows=rows, agreed=agreed, agreement_bound=bound, **values)


def timing(batch: int, speedup: float, spread: float = 0.01) -> Timing:
    return Timing(
        batch=batch,
        speedup=speedup,
        speedup_low=speedup - spread,
        speedup_high=speedup + spread,
        parent_ms=speedup,
        variant_ms=1.0,
        rounds=9,
    )


def report(said: Answers, *timings: Timing, size: int = 1000) -> Report:
    def side(size_bytes: int) -> Footprint:
        return Footprint(size_bytes=size_bytes, load_s=0.1, memory_bytes=1)

    return Report(
        conditions=Conditions(),
        timings=timings,
        parent=side(1000),
        variant=side(size),
        answers=said,
        build_s=1.0,
        machine={},
        libraries={},
    )


def reasons(made: Report, budget: Budget = BUDGET) -> str:
    decision = acceptance.decide(made, budget)
    assert not decision.accepted
    return " ".join(decision.reasons)


def test_a_fast_variant_that_answers_alike_is_accepted() -> None:
    decision = acceptance.decide(report(answers(2000, 2000), timing(1, 3.0), timing(32, 7.0)), BUDGET)
    assert decision.accepted
    assert "3.00 times as fast at batch 1, 7.00 times as fast at batch 32" in decision.reasons[1]


def test_pruning_that_breaks_the_answers_is_rejected_with_its_numbers() -> None:
    said = reasons(
        report(answers(326, 700, labelled=700, parent_right=697, variant_right=326), timing(1, 1.0))
    )
    assert "326 of 700 rows" in said
    assert "right on 326 of 700 labelled rows, its parent on 697" in said
    assert "no benefit: 1.00 times as fast at batch 1 and 1.00 times smaller" in said


def test_known_right_answers_may_stand_in_for_agreement() -> None:
    made = report(answers(690, 700, labelled=700, parent_right=650, variant_right=651), timing(1, 2.0))
    decision = acceptance.decide(made, BUDGET)
    assert decision.accepted
    assert "right on 651 of 700" in decision.reasons[0]


def test_few_rows_allow_no_disagreement() -> None:
    assert acceptance.decide(report(answers(100, 100), timing(1, 2.0)), BUDGET).accepted
    assert not acceptance.decide(report(answers(99, 100), timing(1, 2.0)), BUDGET).accepted
    assert acceptance.enough_rows(0.995) == 598


def test_without_rows_nothing_is_accepted() -> None:
    assert "no row to compare" in reasons(report(answers(0, 0), timing(1, 9.0)))


def test_one_broken_row_rejects_whatever_the_rest_does() -> None:
    assert "1 of 2000 rows" in reasons(report(answers(1999, 2000, broken=1), timing(1, 9.0)))


def test_smaller_is_a_benefit_too_and_slower_is_said() -> None:
    decision = acceptance.decide(report(answers(2000, 2000), timing(1, 0.5), size=250), BUDGET)
    assert decision.accepted
    assert decision.reasons[1] == "4.00 times smaller, but 2.00 times slower at batch 1"


def test_faster_by_chance_is_no_benefit() -> None:
    assert "no benefit" in reasons(report(answers(2000, 2000), timing(1, 1.2, spread=0.4)))


@given(st.integers(1, 3000), st.data())
def test_more_agreement_never_hurts(rows: int, data: st.DataObject) -> None:
    fewer, more = sorted(data.draw(st.lists(st.integers(0, rows), min_size=2, max_size=2)))
    if acceptance.agreement_holds(answers(fewer, rows), BUDGET):
        assert acceptance.agreement_holds(answers(more, rows), BUDGET)


@pytest.mark.parametrize(
    "values",
    [{"min_agreement": 1.5}, {"max_metric_drop": -0.1}, {"min_speedup": 0.5}, {"min_shrink": float("nan")}],
    ids=lambda values: next(iter(values)),
)
def test_impossible_budgets_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(values, Budget)


@pytest.mark.parametrize(
    "values",
    [{"batches": []}, {"batches": [32, 1]}, {"batches": [0]}, {"threads": 0}, {"rounds": 1}, {"round_s": 0}],
    ids=str,
)
def test_impossible_conditions_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(values, Conditions)


# --- how rounds and calls become one figure ---


def timed(seconds: float) -> Timed:
    return Timed(median_s=seconds, calls=9, quiet=1.0, tokens=64, memory_bytes=1)


@given(
    st.lists(st.tuples(st.floats(1e-5, 10), st.floats(1e-5, 10)), min_size=3, max_size=21),
    st.floats(1.001, 50),
)
def test_what_slows_both_sides_of_a_round_changes_no_ratio(
    rounds: list[tuple[float, float]], slower: float
) -> None:
    pairs = [(timed(parent), timed(variant)) for parent, variant in rounds]
    disturbed = [(timed(pairs[0][0].median_s * slower), timed(pairs[0][1].median_s * slower)), *pairs[1:]]
    quiet, noisy = measuring.timing_of(4, pairs), measuring.timing_of(4, disturbed)
    assert noisy.speedup == pytest.approx(quiet.speedup)
    assert quiet.speedup_low <= quiet.speedup <= quiet.speedup_high
    assert quiet.speedup == pytest.approx(statistics.median(a / b for a, b in rounds))


def test_tokens_a_second_are_the_variants() -> None:
    made = measuring.timing_of(4, [(timed(1.0), timed(0.5))] * 3)
    assert (made.speedup, made.tokens_per_s, made.rounds) == (2.0, 128.0, 3)


def test_interrupted_calls_do_not_count() -> None:
    calls = [(1.0, False), (50.0, True), (1.2, False), (60.0, True), (1.1, False)]
    assert measure_process.typical(calls) == 1.1


def test_where_every_call_is_interrupted_the_quick_ones_count() -> None:
    assert measure_process.typical([(5.0, True), (1.0, True), (9.0, True), (8.0, True), (2.0, True)]) == 2.0


def test_every_public_field_of_a_report_survives_json() -> None:
    made = report(answers(10, 10, kl=0.5), timing(1, 2.0))
    again = msgspec.json.decode(msgspec.json.encode(made), type=Report)
    assert again == made
