"""The worker: `python -m control_plane.jobs.worker` gives queued jobs to processes and watches over them.

Jobs live in processes of their own and report to the registry themselves, so a killed worker loses nothing:
the next one finds them by pid and creation time and lets them finish. A job whose process is gone is queued
again.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from control_plane import log
from control_plane.config import Settings, prepare_home
from control_plane.domain.job import JobState, Lane, lane_of
from control_plane.domain.views import Reason
from control_plane.errors import ConflictError
from control_plane.jobs import catalog, orders, processes
from control_plane.jobs.child import Child
from control_plane.services import jobs, uploads
from control_plane.services.context import Context, open_context
from control_plane.services.jobs import RunningJob

POLL_S: Final = 0.2
"""Pause between two looks at the queue, in seconds."""
CANCEL_GRACE_S: Final = 1.0
"""How long a cancelled job may take to end by itself before it is killed, in seconds."""

_log = logging.getLogger(__name__)


class Worker:
    """Keeps up to `settings.job_slots` jobs and one of each other lane running, and a process ready."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._standby: Child | None = None
        self._children: dict[str, Child] = {}
        self._cancel_seen: dict[str, float] = {}

    def tick(self) -> None:
        """Look once: bury the dead, end the cancelled, start what is queued."""
        self._bury()
        uploads.settle(self._ctx)
        running = jobs.running(self._ctx)
        self._end_cancelled(running)
        if any(not _process_lives(job) for job in running):
            self._recover()
            running = jobs.running(self._ctx)
        self._start(_free(running, self._ctx.settings.job_slots))

    def stop(self) -> None:
        """End every job's process; their jobs are queued again for the next worker."""
        for job in jobs.running(self._ctx):
            if job.pid is not None and _process_lives(job):
                processes.kill_session(job.pid)
        for child in (*self._children.values(), *([self._standby] if self._standby else [])):
            child.kill()
        self._children, self._standby = {}, None
        jobs.recover_lost(self._ctx, processes.is_alive, counted=False)

    # starting

    def _start(self, free: Mapping[Lane, int]) -> None:
        if self._standby is None or self._standby.exit_code() is not None:
            self._standby = Child(self._ctx.settings)
        for lane, places in free.items():
            for _ in range(places):
                if not self._start_one(lane):
                    break

    def _start_one(self, lane: Lane) -> bool:
        """Give the oldest queued job of *lane* to the waiting process; whether there was one."""
        if not jobs.waits(self._ctx, lane):
            return False
        child = self._standby or Child(self._ctx.settings)
        job = jobs.claim(self._ctx, child.pid, child.started_at, lane=lane)
        if job is None:
            return False
        child.give(job)
        self._children[job.id] = child
        self._standby = Child(self._ctx.settings)
        _log.info("started %s for %s (job=%s pid=%d)", job.kind, job.subject, job.id, child.pid)
        return True

    # ending

    def _bury(self) -> None:
        """Reap ended processes; one that ended without saying how has its job failed or queued again."""
        for job_id, child in list(self._children.items()):
            code = child.exit_code()
            if code is None:
                continue
            del self._children[job_id]
            self._cancel_seen.pop(job_id, None)
            if jobs.get(self._ctx, job_id).state == JobState.RUNNING:
                self._died(job_id, code)

    def _died(self, job_id: str, exit_code: int) -> None:
        kind, params, attempt = orders.params(self._ctx, job_id)
        _log.warning("job %s: %s", job_id, processes.death_sentence(exit_code))
        if exit_code < 0 and attempt < jobs.MAX_ATTEMPTS:
            return  # queued again by _recover
        sentence = f"It did not finish: {processes.death_sentence(exit_code)}"
        reason = Reason("process_died", sentence, "See the job's log, then retry it.")
        with contextlib.suppress(ConflictError):
            jobs.fail(self._ctx, job_id, reason)
        catalog.get(kind).ended(self._ctx, params, reason)

    def _recover(self) -> None:
        for job in jobs.recover_lost(self._ctx, processes.is_alive):
            _log.warning("job %s lost its process; now it is %s", job.id, job.state)
            if job.state in (JobState.FAILED, JobState.CANCELLED):
                _, params, _ = orders.params(self._ctx, job.id)
                catalog.get(job.kind).ended(self._ctx, params, job.reason)

    def _end_cancelled(self, running: tuple[RunningJob, ...]) -> None:
        """Kill processes of cancelled jobs that did not end by themselves; `recover_lost` records it."""
        now = time.monotonic()
        for job in running:
            if not job.cancel_requested or job.pid is None:
                continue
            since = self._cancel_seen.setdefault(job.id, now)
            if now - since >= CANCEL_GRACE_S and _process_lives(job):
                _log.info("killing cancelled job %s", job.id)
                processes.kill_session(job.pid)


def _free(running: Iterable[RunningJob], slots: int) -> dict[Lane, int]:
    """How many jobs more each lane may run."""
    taken = Counter(lane_of(job.kind) for job in running)
    return {lane: (slots if lane == Lane.MAIN else 1) - taken[lane] for lane in Lane}


def _process_lives(job: RunningJob) -> bool:
    return (
        job.pid is not None
        and job.pid_started_at is not None
        and processes.is_alive(job.pid, job.pid_started_at)
    )


def main() -> int:
    """Work with the settings of the environment. Returns the exit code."""
    return serve(Settings())


def serve(settings: Settings) -> int:
    """Work until SIGTERM or SIGINT. Returns the exit code."""
    log.configure(settings.log_level, "worker")
    prepare_home(settings)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    worker = Worker(open_context(settings))
    _log.info("ready: %d slots", settings.job_slots)
    while not stopping.is_set():
        _tick(worker)
        stopping.wait(POLL_S)
    worker.stop()
    return 0


def _tick(worker: Worker) -> None:
    """One tick that survives whatever goes wrong in it; the next one tries again."""
    try:
        worker.tick()
    except Exception:  # noqa: BLE001  an edge: one job must never end the worker of all others
        _log.exception("tick failed")


if __name__ == "__main__":
    raise SystemExit(main())
