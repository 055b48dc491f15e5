"""`autotune`: tries methods and parameters on a version for so many minutes, and registers the best.

What comes next is decided by `optimization.search`; every trial is a row of the journal, so a job that starts
again goes on where it was, and the minutes count over all its starts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from control_plane.domain.acceptance import agreement_holds, metric_holds
from control_plane.domain.optimization import Report, TrialState
from control_plane.domain.optimization_orders import AUTOTUNE, AutotuneOrder
from control_plane.domain.views import Reason
from control_plane.jobs.base import Progress
from control_plane.jobs.bench import Bench, Task, TrialFailedError
from control_plane.optimization import catalog, estimates, gentler, search
from control_plane.optimization.search import Drop, Finish, Measure, Seen, Try
from control_plane.registry import session as sessions
from control_plane.services import (
    optimization,
    optimization_figures,
    optimization_folders,
    optimization_subjects,
    optimization_trials,
)
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob
from control_plane.services.optimization_subjects import Known
from control_plane.services.optimization_trials import Idea, Trial

LEAST_BUILD_S: Final = 60.0
"""A build that was begun may take this long, however little time is left."""
REGISTER: Final = 0.98
"""Share of the work that is done, at most, before the best is registered."""
_log = logging.getLogger(__name__)


class Clock:
    """Time that counts against the minutes, over all starts of a job: kept in a file beside its work."""

    WRITE_S: Final = 1.0
    """Between two writes; a start that is killed forgets at most so much."""

    def __init__(self, file: Path, budget_s: float) -> None:
        self._file = file
        self._budget_s = budget_s
        self._before = self._read()
        self._began = time.monotonic()
        self._written = self._before

    @property
    def spent_s(self) -> float:
        """Seconds so far."""
        return self._before + time.monotonic() - self._began

    @property
    def left_s(self) -> float:
        """Seconds that are left; below 0 when it took longer."""
        return self._budget_s - self.spent_s

    def tick(self) -> float:
        """Write the time down now and then; the share of the budget that is spent, in [0, 1]."""
        if self.spent_s - self._written >= self.WRITE_S:
            self._written = self.spent_s
            waiting = self._file.with_suffix(".new")
            waiting.write_text(f"{self._written:.3f}\n", "utf-8")
            waiting.replace(self._file)
        return min(1.0, self.spent_s / self._budget_s)

    def _read(self) -> float:
        try:
            return float(self._file.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            return 0.0


class Autotune:
    """Parameters: `AutotuneOrder`. Result: {"variants", "best": `model@N` | None, "ended", "spent_s"}."""

    name = AUTOTUNE
    title = "Autotune a version"
    submittable = False
    description = "Tries methods and parameters on a version for some minutes and registers the best variant."

    def run(self, ctx: Context, job: ClaimedJob, progress: Progress) -> Mapping[str, Any]:
        """Search until the minutes are over or nothing is left to try, then register the best variant."""
        order = msgspec.convert(job.params, AutotuneOrder)
        found = optimization_subjects.workable(ctx, order.ref)
        task = Task(
            job_id=job.id,
            actor=job.created_by,
            conditions=order.conditions,
            budget=order.budget,
            calibration=order.calibration,
        )
        bench = Bench(ctx, found, task)
        if bench.begin():
            optimization_trials.begin_anew(ctx, job.id)
        if not optimization_trials.journal(ctx, job.id):
            optimization_trials.add(ctx, job.id, _ideas(found, order))
        progress("read rows", 0.0)
        bench.prepare()
        clock = Clock(bench.folder / "spent", order.minutes * 60)
        return _Search(ctx, job, order, found, bench, clock, progress).run()

    def ended(self, ctx: Context, params: Mapping[str, Any], reason: Reason | None) -> None:
        """Leave no file behind, and no trial that seems to go on."""
        job_id = str(params["job_id"])
        optimization_trials.settle(ctx, job_id, reason)
        optimization_folders.remove(ctx.settings, job_id)


def _ideas(found: Known, order: AutotuneOrder) -> list[Idea]:
    """What to try, likely and cheap ones first: every method's likeliest parameters before any others.

    Methods that never make anything better by the objective are left out. Parameters that keep fragile layers
    wait until keeping none has spoilt the answers.
    """
    subject = optimization_subjects.subject(found)
    ranked = [
        (rank, -search.hope(method.gains.of(order.objective), method.cost_s), method, params)
        for method in optimization.helpful(subject, order.objective, calibrated=order.calibration is not None)
        for rank, params in enumerate(method.candidates(subject))
    ]
    likeliest = sorted(ranked, key=lambda each: each[:2])
    ideas = [Idea(method.name, params.model_dump(mode="json")) for _, _, method, params in likeliest]
    return [idea for idea in ideas if not gentler.is_gentler(idea.params)]


class _Search:
    """One start of the job."""

    def __init__(
        self, ctx: Context, job: ClaimedJob, order: AutotuneOrder, found: Known, bench: Bench, clock: Clock,
        progress: Progress,
    ) -> None:  # fmt: skip
        self._ctx, self._job, self._order = ctx, job, order
        self._bench, self._clock, self._progress = bench, clock, progress
        self._size_bytes = found.size_bytes
        self._screening = search.screening(order.conditions, order.objective)
        with sessions.read(ctx.engine) as session:
            self._past = optimization_figures.past_builds(session, catalog.names(), each=optimization.PAST)

    def run(self) -> Mapping[str, Any]:
        """Make one move after the other."""
        measuring_s = estimates.measuring_s(self._order.conditions)
        while True:
            trials = optimization_trials.journal(self._ctx, self._job.id)
            seen = [self._seen(trial) for trial in trials]
            move = search.next_move(seen, left_s=self._clock.left_s, measuring_s=measuring_s)
            if isinstance(move, Finish):
                return self._finish(trials, seen, move.why)
            trial = next(each for each in trials if each.number == move.number)
            self._make(move, trial, len(trials))

    def _make(self, move: Try | Measure | Drop, trial: Trial, total: int) -> None:
        if isinstance(move, Drop):
            self._drop(trial, move.code, move.why)
            return
        try:
            if isinstance(move, Try):
                self._try(trial, total)
            else:
                self._measure(trial)
        except TrialFailedError as failure:
            _log.warning("trial %d, %s: %s", trial.number, trial.method, failure.reason.message)
            optimization_trials.failed(self._ctx, self._job.id, trial.number, failure.reason)

    def _try(self, trial: Trial, total: int) -> None:
        """Build it and measure it roughly."""
        named = f"{trial.method} ({trial.number} of {total})"
        optimization_trials.building(self._ctx, self._job.id, trial.number, "build")
        timeout_s = max(LEAST_BUILD_S, self._clock.left_s)
        reply = self._bench.build(trial, lambda: self._beat(f"build {named}"), timeout_s)
        optimization_trials.stage(self._ctx, self._job.id, trial.number, "screen")
        report = self._bench.measure(
            trial,
            reply,
            lambda _: self._beat(f"screen {named}"),
            screening=self._screening,
            rows=search.SCREENING_ROWS,
        )
        optimization_trials.screened(self._ctx, self._job.id, trial.number, report)
        why = search.hopeless(report.answers, self._order.budget)
        if why is not None:
            self._drop(trial, "answers", why)
            self._follow(trial, report)

    def _measure(self, trial: Trial) -> None:
        """Measure it in full and judge it."""
        optimization_trials.stage(self._ctx, self._job.id, trial.number, "measure")
        reply = self._bench.build(trial, lambda: self._beat(f"build {trial.method}"), LEAST_BUILD_S)
        report = self._bench.measure(
            trial, reply, lambda _: self._beat(f"measure {trial.method} (trial {trial.number})")
        )
        self._bench.judge(trial, report)
        answers, budget = report.answers, self._order.budget
        if not (agreement_holds(answers, budget) or metric_holds(answers, budget)):
            self._follow(trial, report)

    def _drop(self, trial: Trial, code: str, why: str) -> None:
        optimization_trials.dropped(self._ctx, self._job.id, trial.number, code, why)
        self._bench.discard(trial.number)

    def _follow(self, trial: Trial, report: Report) -> None:
        """Queue the same method with more layers in full precision, where that may be worth it."""
        if search.score(report, self._order.objective) < search.WINS:
            return
        trials = optimization_trials.journal(self._ctx, self._job.id)
        params = gentler.params(catalog.get(trial.method), trial.params)
        if params is None or _followed(trials, trial) >= search.MOST_FOLLOWED:
            return
        if not any(each.method == trial.method and each.params == params for each in trials):
            idea = Idea(trial.method, params, follows=trial.number)
            optimization_trials.add(self._ctx, self._job.id, [idea])

    def _beat(self, stage: str) -> None:
        self._progress(stage, min(REGISTER, self._clock.tick()))

    def _seen(self, trial: Trial) -> Seen:
        return optimization_figures.seen(trial, self._order.objective, self._cost_s(trial))

    def _cost_s(self, trial: Trial) -> float:
        """Estimated seconds to build and screen the trial."""
        past = self._past.get(trial.method)
        if past:
            build_s = estimates.from_past(past, self._size_bytes)
        else:
            build_s = estimates.scaled(catalog.get(trial.method).cost_s, self._size_bytes)
        return estimates.build_s(build_s) + estimates.measuring_s(self._screening)

    def _finish(self, trials: tuple[Trial, ...], seen: list[Seen], why: str) -> Mapping[str, Any]:
        """Register the best, and leave the artefacts of those that were measured for who wants them."""
        self._progress("register the best", REGISTER)
        champion = search.best(seen)
        best: str | None = None
        if champion is not None:
            best = self._bench.register(trials[_place(trials, champion.number)], by_job=self._job.id)
        for trial in trials:
            if trial.state != TrialState.MEASURED:
                self._bench.discard(trial.number)
        told = optimization_trials.journal(self._ctx, self._job.id)
        return {
            "variants": [optimization_figures.variant(trial, self._order.objective) for trial in told],
            "best": best,
            "ended": why
            if best
            else f"{why}; none of them is accepted and better by {self._order.objective}",
            "spent_s": round(self._clock.spent_s, 1),
        }


def _followed(trials: tuple[Trial, ...], trial: Trial) -> int:
    """How many trials led to this one, one after the other."""
    by_number = {each.number: each for each in trials}
    count, at = 0, trial
    while at.follows is not None and at.follows in by_number:
        count, at = count + 1, by_number[at.follows]
    return count


def _place(trials: tuple[Trial, ...], number: int) -> int:
    return next(at for at, trial in enumerate(trials) if trial.number == number)


KIND: Final = Autotune()
