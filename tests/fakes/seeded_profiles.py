"""Profiles in every state, with reports as the processes write them, made without one."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from control_plane.domain.job import JobState
from control_plane.domain.profile import Wish
from control_plane.domain.views import Reason
from control_plane.registry import session as sessions
from control_plane.registry.tables import Job, ProfileReport
from control_plane.services import profile_folders, profiling
from control_plane.services.context import Context
from serving_agent.contract.profile import (
    REPORT,
    SPEEDSCOPE,
    Flame,
    FlameNode,
    Function,
    KeyFigures,
    Layer,
    Operator,
    Overhead,
    Report,
    SweepPoint,
    Times,
)

VERSION = "digits@1"


def node(name: str, parent: int, self_s: float, total_s: float, kind: str = "function") -> FlameNode:
    return FlameNode(name=name, parent=parent, self_s=self_s, total_s=total_s, calls=10, kind=kind)


def flame(slow: float = 1.0) -> Flame:
    """Ten requests; *slow* times as much in `encoder.1`."""
    inside = 0.02 * slow
    return Flame(
        name="operators",
        total_s=0.03 + inside,
        requests=10,
        nodes=(
            node("request", -1, 0.002, 0.03 + inside, "stage"),
            node("predict", 0, 0.005, 0.028 + inside, "stage"),
            node("Repeats encoder.1", 1, 0.003, 0.013 + inside, "layer"),
            node("Linear head", 1, 0.004, 0.01, "layer"),
            node("aten::addmm", 3, 0.006, 0.006, "operator"),
            node("aten::tanh", 2, 0.010 + inside, 0.010 + inside, "operator"),
        ),
    )


def times(name: str, seconds: float) -> Times:
    return Times(name=name, mean_s=seconds * 1.1, p50_s=seconds, p99_s=seconds * 2)


def report(slow: float = 1.0, **changes: Any) -> Report:
    """Of a version whose `encoder.1` takes *slow* times as long as usual."""
    wall = 0.003 + 0.002 * slow
    sweep = tuple(
        SweepPoint(rows=rows, p50_s=0.004 * (1 + rows / 16), rows_per_s=rows / (0.004 * (1 + rows / 16)),
                   peak_bytes=9_000_000 + rows * 4096, calls=50)
        for rows in (1, 2, 4, 8, 16, 32)
    )  # fmt: skip
    given: dict[str, Any] = {
        "source": "version",
        "key": KeyFigures(
            requests=30, batch=1, wall_s=wall, rows_per_s=1 / wall, predict_s=wall * 0.9,
            peak_bytes=9_000_000, load_s=0.1, knee_rows=8, top="encoder.1", top_share=0.7,
        ),
        "stages": (
            times("preprocess", wall * 0.04), times("predict", wall * 0.9), times("postprocess", wall * 0.02),
            times("encode", wall * 0.03), times("other", wall * 0.01),
        ),
        "total": times("total", wall),
        "flames": (flame(slow),),
        "layers": (
            Layer(path="encoder.1", kind="Repeats", calls=10, self_s=0.0015 * slow, total_s=0.0017 * slow),
            Layer(path="head", kind="Linear", calls=10, self_s=0.0006, total_s=0.0006),
        ),
        "operators": (
            Operator(name="aten::tanh", shapes="[2, 8]", calls=400, self_s=0.012 * slow, total_s=0.012 * slow,
                     memory_bytes=25600),
            Operator(name="aten::addmm", shapes="[8] [2, 8]", calls=20, self_s=0.006, total_s=0.007),
        ),
        "functions": (
            Function(name="forward", place="model.py:3", calls=10, primitive_calls=10, self_s=0.004,
                     total_s=0.02),
        ),
        "memory": ((0.0, 1024), (0.001, 4096), (0.002, 1024)),
        "memory_device": "cpu",
        "sweep": sweep,
        "knee": 8,
        "overheads": (Overhead(name="operators", plain_s=wall, profiled_s=wall * 2.5),),
        "traced_wall_s": 0.0051,
        "traced_self_s": 0.005,
        "traced_requests": 10,
        "function_requests": 10,
        "notes": ("One thing was left out",),
        "libraries": {"torch": "2.13.0"},
    }  # fmt: skip
    return Report(**{**given, **changes})


def add(
    ctx: Context, made: Report | None, *, name: str = "", state: str = "succeeded", ref: str = VERSION
) -> str:
    """A profile of *ref* in *state* with the report *made*; its id."""
    view = profiling.start(ctx, ref, Wish(), name=name, actor="ana")
    if made is not None:
        folder = profile_folders.begin(ctx.settings, view.id)
        (folder / REPORT).write_bytes(msgspec.json.encode(made))
        (folder / SPEEDSCOPE).write_text(json.dumps({"profiles": []}))
        size = profile_folders.finish(ctx.settings, view.id)
        profiling.finished(ctx, view.id, made.key, size)
    with sessions.write(ctx.engine) as session:
        row = session.get_one(ProfileReport, view.id)
        job = session.get_one(Job, row.job_id)
        job.state, job.stage, job.progress = state, "take operators", 0.4
        if state == JobState.FAILED:
            job.error = msgspec.to_builtins(
                Reason("does_not_run", "ValueError: it takes no such rows", "Choose other inputs.")
            )
    return view.id


def fill(ctx: Context) -> dict[str, str]:
    """One in every state; ids by name."""
    return {
        "before": add(ctx, report(), name="before"),
        "after": add(ctx, report(slow=3.0), name="after"),
        "running": add(ctx, None, state="running"),
        "queued": add(ctx, None, state="queued"),
        "failed": add(ctx, None, state="failed"),
    }
