"""Jobs of the lab in processes that kill themselves at a chosen step, the way kill -9 does.

Building and measuring are made up, so that a job takes milliseconds; everything else is the product's own:
registry, files, journal, registration.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from control_plane.domain.job import lane_of
from control_plane.domain.optimization import Answers, Footprint, Timing
from control_plane.jobs import bench, processes, run
from control_plane.optimization import building, measuring
from control_plane.optimization.measuring import Measured
from control_plane.optimization.messages import BuildOrder, BuildReply, MeasureOrder
from control_plane.services import jobs, optimization_folders, optimization_trials, registration
from control_plane.services.context import Context, open_context

STEPS: Final = (
    (optimization_trials, "begin_anew"),
    (optimization_trials, "add"),
    (optimization_trials, "_change"),
    (optimization_trials, "registered"),
    (bench, "write_synced"),
    (bench, "seal"),
    (bench.Bench, "discard"),
    (optimization_folders, "remove"),
    (registration, "register"),
    (building, "build"),
    (measuring, "measure"),
    (jobs, "finish"),
)
"""What changes something that outlives the process; a job may be killed after each call."""


def attempt(ctx: Context, job_id: str, notes: Path, *, kill_at: int) -> bool:
    """Run the queued job in a process that is killed at its step *kill_at*, from 1; whether it was.

    notes: a file that gets one line a build. 0 kills nothing.
    """
    pid = os.fork()
    if pid == 0:
        _as_job(ctx, job_id, notes, kill_at)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def _as_job(ctx: Context, job_id: str, notes: Path, kill_at: int) -> None:
    """What the forked process does; never returns."""
    code = 1
    try:
        steps = _Steps(kill_at)
        building.build = builder(notes, steps.step)
        measuring.measure = measured
        for owner, name in STEPS:
            setattr(owner, name, steps.around(getattr(owner, name)))
        mine = open_context(ctx.settings)
        pid = os.getpid()
        lane = lane_of(jobs.get(mine, job_id).kind)
        claimed = jobs.claim(mine, pid, processes.started_at(pid) or 0.0, lane=lane)
        assert claimed is not None
        assert claimed.id == job_id
        run.perform(mine, claimed)
        code = 0
    finally:
        os._exit(code)


class _Steps:
    """Counts steps and kills the process at one of them."""

    def __init__(self, kill_at: int) -> None:
        self._left = kill_at

    def step(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*args: Any, **named: Any) -> Any:
            result = function(*args, **named)
            self.step()
            return result

        return stepping


def builder(notes: Path, between: Callable[[], None]) -> Callable[..., BuildReply]:
    """A stand-in for `building.build`; between: called when half of the artefact is written."""

    def build(
        order: BuildOrder, environment: Mapping[str, str], beat: Callable[[], None], timeout_s: float
    ) -> BuildReply:
        """Write two files, with a step between them."""
        with notes.open("a") as out:
            out.write(f"{order.method} {order.params}\n")
        beat()
        content = f"{order.method} {sorted(order.params.items())}".encode()
        (Path(order.out) / "first.bin").write_bytes(content)
        between()
        (Path(order.out) / "second.bin").write_bytes(content[::-1])
        return BuildReply(format="torchscript", libraries={"torch": "2"}, seconds=0.5)

    return build


def measured(
    order: MeasureOrder, environment: Mapping[str, str], beat: Callable[[float], None], timeout_s: float
) -> Measured:
    """A stand-in for `measuring.measure`: every method has a speed of its own, all answers agree."""
    beat(0.5)
    content = (Path(order.variant.folder) / "first.bin").read_bytes()
    speedup = 1.5 + len(content) / 100 + 0.2 * (b"onednn" in content)
    timings = tuple(
        Timing(
            batch=batch, speedup=speedup, speedup_low=speedup, speedup_high=speedup,
            parent_ms=speedup, variant_ms=1.0, rounds=3,
        )
        for batch in order.conditions.batches
    )  # fmt: skip
    rows = len(order.rows)
    return Measured(
        timings=timings,
        parent=Footprint(size_bytes=100, load_s=0.1, memory_bytes=100),
        variant=Footprint(size_bytes=50, load_s=0.1, memory_bytes=100),
        answers=Answers(
            rows=rows, agreed=rows, agreement_bound=0.9, max_error=0.0, mean_error=0.0, min_cosine=1.0,
            mean_cosine=1.0,
        ),
    )  # fmt: skip
