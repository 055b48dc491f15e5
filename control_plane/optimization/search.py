"""The search of autotune: what to try next, what to leave behind, when to stop. Pure.

It is told everything about every trial and the time that is left, and says one move; the job makes the move,
writes down what came of it, and asks again. So a job that starts again goes on where it was.

1. Every trial that fits into the time left is built and *screened*: a few rounds at the objective's batch
   size, answers compared on part of the rows. First every method with its likeliest parameters, cheap ones
   before costly ones; then other parameters of the methods that did best. Time to measure the FINALISTS in
   full is kept back.
2. A screening whose answers cannot come to what the budget asks for ends its trial, whatever the speed. If it
   was fast, the same method is queued with more layers in full precision.
3. Of the screened ones the better half goes on (successive halving), and whatever lies within CLOSE of the
   best: so near, a few rounds do not tell them apart.
4. Those are measured in full, the best first. One that cannot come near the best accepted so far any more is
   left behind unmeasured.
5. It ends when nothing is left, or nothing more fits into the time. One trial is tried and one measured
   whatever the estimates say: some answer is better than none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.domain import binomial
from control_plane.domain.optimization import Answers, Budget, Conditions, Objective, Report, TrialState

FINALISTS: Final = 3
"""Trials that time is kept back for while others are tried."""
LEAST_KEPT: Final = 4
"""Screened trials that go on at least."""
CLOSE: Final = 0.8
"""Share of the best score from which on a screened trial goes on."""
MOST_FOLLOWED: Final = 3
"""How often one method is queued again with more layers in full precision."""
WINS: Final = 1.05
"""Score from which on it is worth to keep more layers in full precision."""
TRIAL_S: Final = 10.0
"""What a trial takes beside building it, in seconds, roughly."""
SCREENING_ROUNDS: Final = 5
SCREENING_ROUND_S: Final = 0.08
SCREENING_ROWS: Final = 128
"""Rows that answers are compared on in a screening."""
ALPHA: Final = 0.05
SLACK: Final = 0.01
"""Loss of the task metric beyond the budget that so few rows may show by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One trial as the search sees it."""

    number: int
    method: str
    state: TrialState
    cost_s: float
    """Estimated seconds to build and screen it."""
    score: float | None = None
    """How many times better than its parent by the objective, as measured last; None before that."""
    accepted: bool = False
    """Whether it was measured in full and accepted."""


@dataclass(frozen=True, slots=True)
class Try:
    """Build and screen the trial."""

    number: int


@dataclass(frozen=True, slots=True)
class Measure:
    """Measure the trial in full."""

    number: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Leave the trial behind. why: a sentence without a full stop."""

    number: int
    code: str
    why: str


@dataclass(frozen=True, slots=True)
class Finish:
    """It is over. why: a sentence without a full stop."""

    why: str


Move = Try | Measure | Drop | Finish


def next_move(trials: Sequence[Seen], *, left_s: float, measuring_s: float) -> Move:
    """What to do next. measuring_s: estimated seconds of one full measurement. Each move is final."""
    queued = [trial for trial in trials if trial.state in (TrialState.QUEUED, TrialState.BUILDING)]
    screened = [trial for trial in trials if trial.state == TrialState.SCREENED]
    kept_back = measuring_s * min(FINALISTS, max(1, len(screened)))
    untouched = len(queued) == len(trials)
    for trial in _by_promise(trials, queued):
        if left_s > 0 and (untouched or trial.cost_s + kept_back <= left_s):
            return Try(trial.number)
    if screened:
        return _of_screened(trials, screened, left_s, measuring_s)
    if queued:
        return Drop(queued[0].number, "no_time", "the time left is shorter than it takes")
    return Finish(_ending(trials))


def _by_promise(trials: Sequence[Seen], queued: Sequence[Seen]) -> list[Seen]:
    """*queued* with methods that were not tried yet first, then those whose best trial did best."""
    scores: dict[str, float] = {}
    for trial in trials:
        if trial.state is not TrialState.QUEUED:
            scores[trial.method] = max(scores.get(trial.method, 0.0), _score(trial))
    return sorted(queued, key=lambda trial: (-scores.get(trial.method, math.inf), trial.number))


def _of_screened(trials: Sequence[Seen], screened: Sequence[Seen], left_s: float, measuring_s: float) -> Move:
    """Drop or measure one of the *screened*, worst drops first."""
    ranked = sorted(screened, key=lambda trial: (-_score(trial), trial.number))
    leader, last, champion = ranked[0], ranked[-1], best(trials)
    measured = sum(trial.state == TrialState.MEASURED for trial in trials)
    ahead = champion if champion and _score(champion) >= _score(leader) else leader
    places = max(LEAST_KEPT, math.ceil(_tried(trials) / 2))
    if _score(last) < CLOSE * _score(ahead) and (champion or measured + len(ranked) > places):
        return Drop(last.number, "dominated", _dominated(last, ahead))
    if measured and measuring_s > left_s:
        return Drop(last.number, "no_time", "the time left is shorter than measuring it takes")
    return Measure(leader.number)


def _dominated(trial: Seen, ahead: Seen) -> str:
    return (
        f"left behind: {_score(trial):.2f} times as good as its parent, while trial {ahead.number} is "
        f"{_score(ahead):.2f} times"
    )


def hope(gain: float, cost_s: float) -> float:
    """How much is to be hoped for in a second: *gain* is times better at best, cost_s seconds to build it."""
    return math.log(gain) / (TRIAL_S + cost_s)


def best(trials: Sequence[Seen]) -> Seen | None:
    """The accepted trial with the highest score, if any is better than its parent by the objective."""
    accepted = [trial for trial in trials if trial.accepted and _score(trial) > 1]
    return max(accepted, key=lambda trial: (_score(trial), -trial.number), default=None)


def score(report: Report, objective: Objective) -> float:
    """How many times better than its parent the variant is by *objective*; above 1 it is better."""
    if objective is Objective.LATENCY:
        return report.timings[0].speedup
    if objective is Objective.THROUGHPUT:
        return report.timings[-1].speedup
    if objective is Objective.MEMORY:
        return max(1, report.parent.memory_bytes) / max(1, report.variant.memory_bytes)
    return report.shrink


def screening(conditions: Conditions, objective: Objective) -> Conditions:
    """How trials are screened that are measured in full under *conditions*."""
    batch = conditions.batches[-1] if objective is Objective.THROUGHPUT else conditions.batches[0]
    return _with_rounds(
        conditions,
        batches=(batch,),
        rounds=min(SCREENING_ROUNDS, conditions.rounds),
        round_s=min(SCREENING_ROUND_S, conditions.round_s),
    )


def _with_rounds(
    conditions: Conditions, *, batches: tuple[int, ...], rounds: int, round_s: float
) -> Conditions:
    """*conditions* on the same threads with other batches and rounds."""
    return Conditions(batches=batches, threads=conditions.threads, rounds=rounds, round_s=round_s)


def hopeless(answers: Answers, budget: Budget) -> str | None:
    """Why answers to part of the rows show that the budget cannot be met on all; None where it may be."""
    if answers.broken:
        return f"{answers.broken} of {answers.rows} rows are answered with NaN or infinity"
    if not answers.rows:
        return None
    at_most = binomial.upper(answers.agreed, answers.rows, ALPHA)
    lost = answers.metric_drop
    if at_most >= budget.min_agreement or (lost is not None and lost <= budget.max_metric_drop + SLACK):
        return None
    return (
        f"the same answer on only {answers.agreed} of {answers.rows} rows of the screening, so with 95 % "
        f"confidence on at most {at_most:.2%}; {budget.min_agreement:.1%} is needed"
    )


def front(points: Sequence[tuple[int, float, float]]) -> tuple[int, ...]:
    """Numbers of those *points* (number, score, agreement) that no other beats in both, best score first.

    One beats another when it is at least as good in both and better in one.
    """
    kept = [point for point in points if not any(_beats(other, point) for other in points)]
    return tuple(number for number, _, _ in sorted(kept, key=lambda each: (-each[1], -each[2], each[0])))


def _beats(one: tuple[int, float, float], other: tuple[int, float, float]) -> bool:
    return one[1] >= other[1] and one[2] >= other[2] and one[1:] != other[1:]


def _ending(trials: Sequence[Seen]) -> str:
    tried = sum(trial.score is not None for trial in trials)
    measured = sum(trial.state == TrialState.MEASURED for trial in trials)
    return f"{tried} of {len(trials)} variants were tried and {measured} measured in full"


def _tried(trials: Sequence[Seen]) -> int:
    return sum(trial.score is not None for trial in trials)


def _score(trial: Seen) -> float:
    return trial.score or 0.0
