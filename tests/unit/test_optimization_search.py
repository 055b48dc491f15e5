"""The search of autotune: ends in time, keeps what matters, and says the same after a restart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from control_plane.domain.optimization import (
    Answers,
    Budget,
    Conditions,
    Footprint,
    Objective,
    Report,
    Timing,
    TrialState,
)
from control_plane.optimization import catalog, estimates, gentler, search
from control_plane.optimization.search import Drop, Finish, Measure, Move, Seen, Try

MEASURING_S = 20.0
OPEN = (TrialState.QUEUED, TrialState.BUILDING, TrialState.SCREENED)


@dataclass(frozen=True)
class Truth:
    """What trying one variant would show."""

    score: float
    cost_s: float
    works: bool = True
    hopeless: bool = False
    accepted: bool = True


@dataclass
class World:
    """A lab in which everything takes as long as estimated, and screenings see the truth."""

    truths: list[Truth]
    left_s: float
    trials: list[Seen]
    moves: list[Move]

    @classmethod
    def of(cls, truths: list[Truth], budget_s: float) -> World:
        trials = [
            Seen(number=at, method=f"m{at % 3}", state=TrialState.QUEUED, cost_s=truth.cost_s)
            for at, truth in enumerate(truths, 1)
        ]
        return cls(truths, budget_s, trials, [])

    def run(self) -> str:
        """Make moves until it is over; why it was."""
        for _ in range(3 * len(self.truths) + 1):
            move = search.next_move(self.trials, left_s=self.left_s, measuring_s=MEASURING_S)
            self.moves.append(move)
            if isinstance(move, Finish):
                return move.why
            self.make(move)
        raise AssertionError(f"it goes on for ever: {self.moves[-5:]}")

    def make(self, move: Try | Measure | Drop) -> None:
        trial, truth = self.trials[move.number - 1], self.truths[move.number - 1]
        if isinstance(move, Drop):
            assert trial.state in OPEN
            after = replace(trial, state=TrialState.DROPPED)
        elif isinstance(move, Try):
            assert trial.state is TrialState.QUEUED
            self.left_s -= truth.cost_s
            state = TrialState.DROPPED if truth.hopeless else TrialState.SCREENED
            after = replace(trial, state=state, score=truth.score)
            if not truth.works:
                after = replace(trial, state=TrialState.FAILED)
        else:
            assert trial.state is TrialState.SCREENED
            self.left_s -= MEASURING_S
            after = replace(trial, state=TrialState.MEASURED, accepted=truth.accepted)
        self.trials[move.number - 1] = after


truths = st.lists(
    st.builds(
        Truth,
        score=st.floats(0.1, 20),
        cost_s=st.floats(1, 120),
        works=st.booleans(),
        hopeless=st.booleans(),
        accepted=st.booleans(),
    ),
    max_size=30,
)


@given(truths, st.floats(0, 3600))
def test_every_search_ends_with_every_trial_settled_and_nearly_in_time(
    found: list[Truth], budget_s: float
) -> None:
    world = World.of(found, budget_s)
    world.run()
    assert not [trial for trial in world.trials if trial.state in OPEN]
    longest = max((truth.cost_s for truth in found), default=0.0)
    assert world.left_s >= min(0.0, budget_s) - longest - MEASURING_S


@given(truths.filter(bool), st.floats(1, 600))
def test_something_is_tried_and_what_was_screened_leads_to_a_measurement(
    found: list[Truth], budget_s: float
) -> None:
    world = World.of(found, budget_s)
    world.run()
    assert any(isinstance(move, Try) for move in world.moves)
    may_be_measured = any(
        isinstance(move, Try) and found[move.number - 1].works and not found[move.number - 1].hopeless
        for move in world.moves
    )
    assert may_be_measured == any(isinstance(move, Measure) for move in world.moves)


@given(truths)
@example([Truth(score=0.5, cost_s=1)])
def test_with_time_for_all_and_nothing_rejected_the_best_is_found(found: list[Truth]) -> None:
    good = [replace(truth, accepted=True) for truth in found]
    world = World.of(good, 1e6)
    world.run()
    able = [truth.score for truth in good if truth.works and not truth.hopeless and truth.score > 1]
    champion = search.best(world.trials)
    assert (champion.score if champion else None) == max(able, default=None)


@given(truths)
def test_the_best_of_the_first_few_is_not_lost_behind_rejected_leaders(found: list[Truth]) -> None:
    world = World.of(found, 1e6)
    world.run()
    screened = sorted(
        (truth for truth in found if truth.works and not truth.hopeless), key=lambda truth: -truth.score
    )
    kept = [truth.score for truth in screened[: search.LEAST_KEPT] if truth.accepted and truth.score > 1]
    champion = search.best(world.trials)
    assert (champion.score or 0 if champion else 0) >= max(kept, default=0)


@given(truths, st.floats(0, 1000), st.integers(0, 20))
def test_a_restart_changes_nothing(found: list[Truth], budget_s: float, after: int) -> None:
    whole = World.of(found, budget_s)
    whole.run()
    half = World.of(found, budget_s)
    for move in whole.moves[:after]:
        if not isinstance(move, Finish):
            half.make(move)
    again = World(found, half.left_s, list(half.trials), [])
    again.run()
    assert again.moves == whole.moves[min(after, len(whole.moves) - 1) :]


def test_a_build_that_was_interrupted_is_tried_again() -> None:
    trial = Seen(number=1, method="m", state=TrialState.BUILDING, cost_s=5.0)
    assert search.next_move([trial], left_s=100.0, measuring_s=20.0) == Try(1)


def test_other_parameters_of_the_best_method_come_before_those_of_worse_ones() -> None:
    tried = [
        Seen(number=1, method="slow", state=TrialState.DROPPED, cost_s=1, score=0.5),
        Seen(number=2, method="fast", state=TrialState.SCREENED, cost_s=1, score=3.0),
    ]
    queued = [
        Seen(number=3, method="slow", state=TrialState.QUEUED, cost_s=1),
        Seen(number=4, method="fast", state=TrialState.QUEUED, cost_s=1),
        Seen(number=5, method="new", state=TrialState.QUEUED, cost_s=1),
    ]
    left = [*tried, *queued]
    order = []
    while isinstance(move := search.next_move(left, left_s=1e6, measuring_s=1), Try):
        order.append(move.number)
        left = [
            replace(each, state=TrialState.FAILED) if each.number == move.number else each for each in left
        ]
    assert order == [5, 4, 3]


def test_a_screening_that_cannot_come_near_the_champion_is_left_unmeasured() -> None:
    trials = [
        Seen(number=1, method="a", state=TrialState.MEASURED, cost_s=1, score=4.0, accepted=True),
        Seen(number=2, method="b", state=TrialState.SCREENED, cost_s=1, score=3.1),
        Seen(number=3, method="c", state=TrialState.SCREENED, cost_s=1, score=3.9),
    ]
    move = search.next_move(trials, left_s=1e6, measuring_s=1)
    assert isinstance(move, Drop)
    assert (move.number, move.code) == (2, "dominated")
    assert "trial 1 is 4.00 times" in move.why


def test_what_no_longer_fits_into_the_time_is_dropped_with_that_reason() -> None:
    trials = [
        Seen(number=1, method="a", state=TrialState.MEASURED, cost_s=1, score=4.0, accepted=True),
        Seen(number=2, method="b", state=TrialState.QUEUED, cost_s=50),
    ]
    move = search.next_move(trials, left_s=30, measuring_s=10)
    assert move == Drop(2, "no_time", "the time left is shorter than it takes")


def test_one_that_is_worse_than_its_parent_is_never_the_best() -> None:
    trial = Seen(number=1, method="a", state=TrialState.MEASURED, cost_s=1, score=0.9, accepted=True)
    assert search.best([trial]) is None


points = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), max_size=30)


@given(points)
def test_the_front_holds_exactly_what_nothing_beats(values: list[tuple[float, float]]) -> None:
    numbered = [(at, *value) for at, value in enumerate(values)]
    front = search.front(numbered)
    for number, score, agreement in numbered:
        beaten = any(a >= score and b >= agreement and (a > score or b > agreement) for _, a, b in numbered)
        assert (number in front) != beaten
    scores = [values[number][0] for number in front]
    assert scores == sorted(scores, reverse=True)


def report(**changes: object) -> Report:
    """A measurement at batches 1 and 32 in which the variant is 2 and 8 times as fast."""
    timings = tuple(
        Timing(
            batch=batch, speedup=speedup, speedup_low=speedup, speedup_high=speedup,
            parent_ms=1.0, variant_ms=1.0, rounds=3,
        )
        for batch, speedup in ((1, 2.0), (32, 8.0))
    )  # fmt: skip
    given: dict[str, object] = {
        "conditions": Conditions(),
        "timings": timings,
        "parent": Footprint(size_bytes=400, load_s=1.0, memory_bytes=3000),
        "variant": Footprint(size_bytes=100, load_s=1.0, memory_bytes=1000),
        "answers": answers(100, 100),
        "build_s": 1.0,
        "machine": {},
        "libraries": {},
    }
    return Report(**{**given, **changes})  # type: ignore[arg-type]


def answers(agreed: int, rows: int, **changes: int) -> Answers:
    """Answers of which so many agree."""
    return Answers(
        rows=rows, agreed=agreed, agreement_bound=0.0, max_error=0.0, mean_error=0.0, min_cosine=1.0,
        mean_cosine=1.0, **changes,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("objective", "score"),
    [
        (Objective.LATENCY, 2.0),
        (Objective.THROUGHPUT, 8.0),
        (Objective.MEMORY, 3.0),
        (Objective.SIZE, 4.0),
    ],
)
def test_each_objective_reads_its_own_figure(objective: Objective, score: float) -> None:
    assert search.score(report(), objective) == score


@pytest.mark.parametrize("objective", list(Objective))
def test_a_screening_is_short_and_at_the_batch_that_counts(objective: Objective) -> None:
    full = Conditions(batches=(2, 8, 64), threads=2, rounds=21, round_s=1.0)
    short = search.screening(full, objective)
    assert short.batches == ((64,) if objective is Objective.THROUGHPUT else (2,))
    assert short.threads == 2
    assert estimates.measuring_s(short) < estimates.measuring_s(full)


def test_answers_that_cannot_come_to_the_budget_are_hopeless_and_others_are_not() -> None:
    budget = Budget()
    assert search.hopeless(answers(128, 128), budget) is None
    assert search.hopeless(answers(126, 128), budget) is None, "two of 128 may still be 99.5 % of many"
    assert "94 of 128" in (search.hopeless(answers(94, 128), budget) or "")
    assert "NaN" in (search.hopeless(answers(127, 128, broken=1), budget) or "")
    labelled = answers(94, 128, labelled=128, parent_right=100, variant_right=101)
    assert search.hopeless(labelled, budget) is None, "it is right as often as its parent"
    assert search.hopeless(answers(0, 0), budget) is None


@given(st.floats(0.1, 600), st.integers(1, 10**10), st.integers(1, 10**10))
def test_estimates_grow_with_the_size_and_a_past_build_of_one_size_is_its_own_estimate(
    seconds: float, size: int, other: int
) -> None:
    assert estimates.from_past([(seconds, size)], size) == pytest.approx(seconds)
    bigger, smaller = max(size, other), min(size, other)
    assert estimates.scaled(seconds, bigger) >= estimates.scaled(seconds, smaller) >= seconds


def test_gentler_parameters_keep_more_and_more_layers_until_the_bound() -> None:
    method = next(m for m in catalog.methods() if gentler.FIELD in m.params.model_fields)
    params, kept = method.params().model_dump(mode="json"), []
    assert not gentler.is_gentler(params)
    while (following := gentler.params(method, params)) is not None:
        assert gentler.is_gentler(following)
        assert {**following, gentler.FIELD: 0} == {**params, gentler.FIELD: 0}
        params = following
        kept.append(params[gentler.FIELD])
    assert kept[:2] == [2, 8]


def test_methods_that_keep_no_layers_have_no_gentler_parameters() -> None:
    method = catalog.get("torchscript-trace")
    assert gentler.params(method, method.params().model_dump(mode="json")) is None


@given(st.floats(1.01, 20), st.floats(0.5, 120), st.floats(1.01, 2))
def test_more_gain_and_less_time_give_more_hope(gain: float, cost_s: float, more: float) -> None:
    assert search.hope(gain * more, cost_s) > search.hope(gain, cost_s) > search.hope(gain, cost_s * more) > 0


def test_what_helps_nobody_has_no_hope() -> None:
    pruning = catalog.get("l1-pruning")
    assert [search.hope(pruning.gains.of(objective), pruning.cost_s) for objective in Objective] == [0.0] * 4
