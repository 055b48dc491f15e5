"""Optimisation jobs with trials in every state, and versions that came of them, as the jobs write them."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import msgspec

from control_plane.domain.acceptance import decide
from control_plane.domain.binomial import lower
from control_plane.domain.optimization import (
    METHOD,
    REPORT,
    Answers,
    Budget,
    Conditions,
    Decision,
    Footprint,
    Objective,
    Recorded,
    Report,
    Timing,
    TrialState,
)
from control_plane.domain.optimization_orders import AUTOTUNE, OPTIMIZE, AutotuneOrder, OptimizeOrder
from control_plane.domain.views import Reason
from control_plane.registry import session as sessions
from control_plane.registry.tables import Job, OptimizationTrial, Version, new_id
from control_plane.services import optimization_folders, registration
from control_plane.services.context import Context
from tests.fakes import seeded

PARENT = "digits@1"
MACHINE = {
    "cpu": "Example CPU 2.0 GHz",
    "cores": 8,
    "flags": ["avx512_vnni"],
    "memory_bytes": 16 * 2**30,
    "gpus": [],
}
LIBRARIES = {"torch": "2.13.0", "torchao": "0.18.0"}
ROWS = 600


def report(
    one: float,
    many: float,
    *,
    agreed: int = ROWS,
    shrink: float = 3.9,
    right: int | None = None,
    rows: int = ROWS,
) -> Report:
    """A variant that is *one* and *many* times as fast at batch 1 and 32."""
    size = 1_600_000
    return Report(
        conditions=Conditions(),
        timings=(_timing(1, one, 1.2), _timing(32, many, 9.6)),
        parent=Footprint(size_bytes=size, load_s=0.041, memory_bytes=30_000_000),
        variant=Footprint(size_bytes=round(size / shrink), load_s=0.056, memory_bytes=22_000_000),
        answers=Answers(
            rows=rows,
            agreed=agreed,
            agreement_bound=lower(agreed, rows, 0.05),
            max_error=0.21,
            mean_error=0.013,
            min_cosine=0.991,
            mean_cosine=0.9993,
            kl=0.0004,
            labelled=rows,
            parent_right=round(rows * 0.996),
            variant_right=round(rows * 0.996) if right is None else right,
        ),
        build_s=3.4,
        machine=MACHINE,
        libraries=LIBRARIES,
        notes=("3 of 4 layers are quantised",),
    )


def _timing(batch: int, speedup: float, parent_ms: float) -> Timing:
    return Timing(
        batch=batch,
        speedup=speedup,
        speedup_low=speedup * 0.95,
        speedup_high=speedup * 1.04,
        parent_ms=parent_ms,
        variant_ms=parent_ms / speedup,
        rounds=9,
    )


def fill(ctx: Context) -> dict[str, str]:
    """Jobs by name: a search that runs, one that ended, single variants in every state; `digits@1` exists."""
    return {
        "searching": _search(ctx, "running", age_s=60.0),
        "searched": _search(ctx, "succeeded", age_s=900.0),
        "accepted": _single(ctx, "dynamic-int8", "succeeded", report(3.4, 4.77)),
        "rejected": _single(
            ctx, "l1-pruning", "succeeded", report(1.0, 1.01, agreed=280, right=280, shrink=1)
        ),
        "building": _single(ctx, "torchscript-trace", "running", None),
        "queued": _single(ctx, "torchscript-trace", "queued", None),
        "failed": _single(
            ctx,
            "onnx-dynamic-int8",
            "failed",
            None,
            Reason("build", "the operator aten::foo has no ONNX counterpart", "Try another method."),
        ),
    }


def register(ctx: Context, job_id: str, number: int) -> str:
    """The version of a measured trial, as a job registers it."""
    with sessions.read(ctx.engine) as session:
        row = session.query(OptimizationTrial).filter_by(job_id=job_id, number=number).one()
        known = msgspec.convert(row.report, Report), msgspec.convert(row.decision, Decision)
        method, params = row.method, row.params
    folder = ctx.settings.uploads_dir / new_id()
    folder.mkdir(parents=True)
    (folder / "model.pt").write_bytes(f"{job_id} {number}".encode() * 9000)
    recorded = Recorded(
        parent=PARENT,
        method=method,
        params=params,
        calibration=None,
        job=job_id,
        trial=number,
        report=known[0],
        decision=known[1],
        budget=Budget(),
    )
    ref = registration.register(
        ctx,
        model="digits",
        files_dir=folder,
        format="torchscript",
        handler="image-classification",
        signature=seeded.DIGITS,
        labels=[str(digit) for digit in range(10)],
        actor="ana",
        parent_ref=PARENT,
        lineage={METHOD: method, "job": job_id, REPORT: msgspec.to_builtins(recorded)},
    )
    with sessions.write(ctx.engine) as session:
        row = session.query(OptimizationTrial).filter_by(job_id=job_id, number=number).one()
        model, _, version = ref.partition("@")
        row.version_id = (
            session.query(Version)
            .filter(Version.model.has(name=model), Version.number == int(version))
            .one()
            .id
        )
    return ref


def _search(ctx: Context, state: str, *, age_s: float) -> str:
    now = time.time() - age_s
    job_id = new_id()
    order = AutotuneOrder(
        job_id=job_id,
        ref=PARENT,
        objective=Objective.LATENCY,
        minutes=10.0,
        calibration=None,
        conditions=Conditions(),
        budget=Budget(),
    )
    running = state == "running"
    result = {
        "variants": [],
        "best": None,
        "ended": "nothing that is left to try fits into the time",
        "spent_s": 540.0,
    }
    _job(
        ctx,
        job_id,
        AUTOTUNE,
        f"{PARENT} for latency",
        state,
        msgspec.to_builtins(order),
        now,
        stage="screen dynamic-int8 (9 of 12)" if running else "register the best",
        progress=0.42 if running else 1.0,
        result=None if running else result,
    )
    measured, dropped = TrialState.MEASURED, TrialState.DROPPED
    trials: list[dict[str, Any]] = [
        {"method": "dynamic-int8", "params": {"engine": "x86", "keep": []}, "report": report(3.4, 4.77)},
        {"method": "dynamic-int8", "params": {"engine": "onednn", "keep": []}, "report": report(2.6, 7.9)},
        {"method": "torchscript-trace", "params": {"freeze": True}, "report": report(1.62, 1.1, shrink=1.0)},
        {
            "method": "weight-only-int8",
            "params": {},
            "report": report(0.7, 0.92, agreed=599, shrink=3.8),
        },
        {
            "method": "static-int8",
            "params": {"engine": "x86"},
            "report": report(4.1, 7.07, agreed=585, right=588),
        },
        {"method": "l1-pruning", "params": {"amount": 0.5}, "report": report(1, 1, agreed=280, right=280)},
        {
            "method": "bf16",
            "params": {},
            "state": dropped,
            "screening": report(0.6, 1.1, shrink=2.0, rows=64, agreed=64),
            "reason": Reason("speed", "others are faster", None),
        },
        {
            "method": "onnx-dynamic-int8",
            "params": {},
            "state": TrialState.FAILED,
            "reason": Reason("build", "the operator aten::foo has no ONNX counterpart", None),
        },
    ]
    if running:
        trials += [
            {
                "method": "channel-pruning",
                "params": {"amount": 0.3},
                "state": TrialState.SCREENED,
                "stage": "screen",
                "screening": report(1.9, 2.0, rows=64, agreed=63, shrink=1.8),
            },
            {"method": "fp16", "params": {}, "state": TrialState.BUILDING, "stage": "build"},
            {"method": "sparse-2-4", "params": {}, "state": TrialState.QUEUED},
        ]
    for number, trial in enumerate(trials, 1):
        _trial(ctx, job_id, number, **{"state": measured, **trial})
    return job_id


def _single(
    ctx: Context, method: str, state: str, measured: Report | None, reason: Reason | None = None
) -> str:
    job_id = new_id()
    order = OptimizeOrder(
        job_id=job_id,
        ref=PARENT,
        method=method,
        params={},
        calibration=None,
        conditions=Conditions(),
        budget=Budget(),
    )
    running = state == "running"
    _job(
        ctx,
        job_id,
        OPTIMIZE,
        f"{PARENT} by {method}",
        state,
        msgspec.to_builtins(order),
        time.time() - 20,
        stage="measure at batch 32" if running else "",
        progress=0.6 if running else float(state == "succeeded"),
        result={"version": None} if state == "succeeded" else None,
        reason=reason,
    )
    states = {"running": TrialState.BUILDING, "queued": TrialState.QUEUED, "failed": TrialState.FAILED}
    _trial(
        ctx,
        job_id,
        1,
        method=method,
        params={},
        state=states.get(state, TrialState.MEASURED),
        report=measured,
        reason=reason,
        stage="build" if running else "",
    )
    return job_id


def _job(
    ctx: Context,
    job_id: str,
    kind: str,
    subject: str,
    state: str,
    params: dict[str, Any],
    at: float,
    *,
    stage: str,
    progress: float,
    result: dict[str, Any] | None,
    reason: Reason | None = None,
) -> None:
    final = state in ("succeeded", "failed")
    job = Job(
        id=job_id,
        kind=kind,
        subject=subject,
        params=params,
        state=state,
        stage=stage,
        progress=progress,
        cancel_requested=False,
        attempt=0 if state == "queued" else 1,
        result=result,
        error=asdict(reason) if reason else None,
        created_by="ana",
        created_at=at - 6,
        started_at=None if state == "queued" else at - 5,
        finished_at=at if final else None,
    )
    with sessions.write(ctx.engine) as session:
        session.add(job)


def _trial(
    ctx: Context,
    job_id: str,
    number: int,
    *,
    method: str,
    params: dict[str, Any],
    state: str,
    report: Report | None = None,
    screening: Report | None = None,
    reason: Reason | None = None,
    stage: str = "",
) -> None:
    now = time.time()
    with sessions.write(ctx.engine) as session:
        session.add(
            OptimizationTrial(
                job_id=job_id,
                number=number,
                method=method,
                params=params,
                state=state,
                stage=stage,
                reason=asdict(reason) if reason else None,
                build=None,
                screening=msgspec.to_builtins(screening) if screening else None,
                report=msgspec.to_builtins(report) if report else None,
                decision=msgspec.to_builtins(decide(report, Budget())) if report else None,
                created_at=now,
                updated_at=now,
            )
        )
    if state == TrialState.MEASURED:
        folder = optimization_folders.of_trial(optimization_folders.of_job(ctx.settings, job_id), number)
        folder.mkdir(parents=True)
        (folder / optimization_folders.BUILT).write_text("{}", "utf-8")
