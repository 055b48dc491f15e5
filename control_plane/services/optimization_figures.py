"""Trials as services return them, and what follows from many of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy.orm import Session

from control_plane.domain.job import JobState
from control_plane.domain.optimization import Objective, Report, TrialState
from control_plane.domain.optimization_orders import AutotuneOrder
from control_plane.domain.optimization_views import SearchView, TrialView
from control_plane.errors import InvalidInputError
from control_plane.optimization import catalog, search
from control_plane.registry import optimization_trials as rows
from control_plane.registry.tables import Job, OptimizationTrial
from control_plane.services import optimization_folders, optimization_trials
from control_plane.services.optimization_trials import Trial

_BUILT: Final = (TrialState.SCREENED, TrialState.MEASURED, TrialState.DROPPED)
MAX_REASON_CHARS: Final = 300


def trial_view(row: OptimizationTrial, folder: Path) -> TrialView:
    """*row* as services return it. folder: its job's."""
    trial = optimization_trials.of_row(row)
    return TrialView(
        job_id=row.job_id,
        number=row.number,
        method=row.method,
        title=_title(row.method),
        params=row.params,
        state=row.state,
        stage=row.stage,
        reason=trial.reason,
        report=trial.report or trial.screening,
        screened=trial.report is None and trial.screening is not None,
        decision=trial.decision,
        version_ref=trial.version_ref,
        registrable=trial.version_ref is None
        and trial.state == TrialState.MEASURED
        and optimization_folders.is_built(folder, row.number),
        registering_job=row.registering_job_id,
        follows=row.follows,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def search_view(job: Job, found: Sequence[OptimizationTrial]) -> SearchView:
    """What the autotune job *job* is asked for and where it is. found: its trials."""
    order = msgspec.convert(job.params, AutotuneOrder)
    trials = [optimization_trials.of_row(row) for row in found]
    champion = search.best([seen(trial, order.objective, 0.0) for trial in trials])
    result = job.result or {}
    ended = result.get("ended") or (f"the job was {job.state}" if job.state in _ENDED_EARLY else None)
    return SearchView(
        job_id=job.id,
        ref=order.ref,
        objective=order.objective.value,
        minutes=order.minutes,
        spent_s=result.get("spent_s", min(1.0, job.progress) * order.minutes * 60),
        best=champion.number if champion else None,
        front=search.front(
            [
                (trial.number, search.score(trial.report, order.objective), trial.report.answers.agreement)
                for trial in trials
                if trial.report is not None
            ]
        ),
        ended=ended,
    )


def seen(trial: Trial, objective: Objective, cost_s: float) -> search.Seen:
    """*trial* as the search sees it. cost_s: estimated seconds to build and screen it."""
    report = trial.report or trial.screening
    return search.Seen(
        number=trial.number,
        method=trial.method,
        state=trial.state,
        cost_s=cost_s,
        score=search.score(report, objective) if report else None,
        accepted=trial.decision is not None and trial.decision.accepted,
    )


def past_builds(
    session: Session, methods: Collection[str], *, each: int
) -> dict[str, tuple[tuple[float, int], ...]]:
    """By method: (seconds, bytes of the parent) of its latest builds here."""
    found: defaultdict[str, list[tuple[float, int]]] = defaultdict(list)
    for row in rows.latest_built(session, methods, states=_BUILT, each=each):
        report = row.report or row.screening
        if row.build and report:
            found[row.method].append((row.build["seconds"], report["parent"]["size_bytes"]))
    return {method: tuple(builds) for method, builds in found.items()}


def variant(trial: Trial, objective: Objective | None) -> dict[str, Any]:
    """*trial* as results and `--json` tell it: small plain JSON."""
    report = trial.report or trial.screening
    return {
        "number": trial.number,
        "method": trial.method,
        "params": trial.params,
        "state": str(trial.state),
        "accepted": trial.decision is not None and trial.decision.accepted,
        "version": trial.version_ref,
        "speedup": _speedup(report, objective) if report else None,
        "size_ratio": report.shrink if report else None,
        "memory_ratio": search.score(report, Objective.MEMORY) if report else None,
        "agreement": report.answers.agreement if report else None,
        "agreement_bound": report.answers.agreement_bound if report else None,
        "metric_drop": report.answers.metric_drop if report else None,
        "reasons": [reason[:MAX_REASON_CHARS] for reason in _reasons(trial)],
    }


def _speedup(report: Report, objective: Objective | None) -> float:
    """At the batch size that the objective is about; the best one where it is about none."""
    if objective in (Objective.LATENCY, Objective.THROUGHPUT):
        return search.score(report, objective)
    return report.best_speedup


def _reasons(trial: Trial) -> tuple[str, ...]:
    if trial.reason is not None:
        return (trial.reason.message,)
    return trial.decision.reasons if trial.decision else ()


def _title(method: str) -> str:
    """The method's name for people; its key where the catalogue has it no more."""
    try:
        return catalog.get(method).title
    except InvalidInputError:
        return method


_ENDED_EARLY: Final = (JobState.FAILED, JobState.CANCELLED)
