"""One job in one process: `python -m control_plane.jobs.run` reads its order from stdin and carries it out.

The worker starts it ahead of time, so that imports are over when a job arrives. The end of stdin without an
order means that the worker is gone: it ends. Everything it prints goes to the job's log.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from control_plane import log
from control_plane.config import Settings
from control_plane.domain.views import Reason
from control_plane.errors import SignalboxError
from control_plane.jobs import catalog, limits
from control_plane.jobs.base import JobFailedError, JobKind
from control_plane.services import jobs, registration, uploads, versions  # noqa: F401  warm before a job arrives
from control_plane.services.context import Context, open_context
from control_plane.services.jobs import ClaimedJob, JobCancelled

MIN_REPORT_S: Final = 0.1
"""Reports of one stage are written at most this often, in seconds."""
MAX_FILE_BYTES: Final = 1024**4

_log = logging.getLogger(__name__)


class Reporter:
    """Writes progress to the job's row, and not more often than anyone can see."""

    def __init__(self, ctx: Context, job_id: str) -> None:
        self._ctx = ctx
        self._job_id = job_id
        self._stage = ""
        self._next_s = 0.0

    def __call__(self, stage: str, done: float) -> None:
        """Report *stage* and the done share in [0, 1]. Raises JobCancelled."""
        now = time.monotonic()
        if stage == self._stage and now < self._next_s:
            return
        if stage != self._stage:
            _log.info("%s", stage)
        self._stage, self._next_s = stage, now + MIN_REPORT_S
        jobs.report(self._ctx, self._job_id, stage, done)


def main() -> int:
    """Wait for an order and carry it out. Returns the exit code: 0 once the job's end is recorded."""
    settings = Settings()
    ctx = open_context(settings)
    catalog.kinds()
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    job = msgspec.json.decode(line, type=ClaimedJob)
    _log_to(settings.logs_dir / "jobs" / f"{job.id}.log")
    log.configure(settings.log_level, "job")
    limits.apply(memory=limits.memory_bytes(settings.agent_memory), file_size=MAX_FILE_BYTES)
    perform(ctx, job)
    logging.shutdown()
    os._exit(0)  # all is recorded: taking torch apart would only keep memory and a slot for seconds


def perform(ctx: Context, job: ClaimedJob) -> None:
    """Run *job* here and record how it ended."""
    kind = catalog.get(job.kind)
    _log.info("attempt %d of %s for %s", job.attempt, job.kind, job.subject)
    try:
        result = kind.run(ctx, job, Reporter(ctx, job.id))
    except JobCancelled:
        _log.info("cancelled")
        kind.ended(ctx, job.params, None)
        jobs.cancelled(ctx, job.id)
    except JobFailedError as error:
        _log.error("%s", error)
        _failed(ctx, job, kind, error.reason)
    except SignalboxError as error:
        _log.error("%s", error)
        _failed(ctx, job, kind, Reason(error.code, error.message, error.next_step))
    except OSError as error:
        _log.exception("failed")
        _failed(ctx, job, kind, _disk_reason(error))
    except MemoryError:
        _log.exception("out of memory")
        _failed(ctx, job, kind, _out_of_memory(ctx.settings))
    except Exception as error:  # noqa: BLE001  the edge of a job: whatever it raises becomes its reason
        _log.exception("failed")
        sentence = f"{type(error).__name__}: {error}"[:300]
        _failed(ctx, job, kind, Reason("job_failed", sentence, "See the job's log, then retry it."))
    else:
        jobs.finish(ctx, job.id, result)
        _log.info("done")


def _failed(ctx: Context, job: ClaimedJob, kind: JobKind, reason: Reason) -> None:
    kind.ended(ctx, job.params, reason)
    jobs.fail(ctx, job.id, reason)


def _disk_reason(error: OSError) -> Reason:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Reason("no_space", "The disk is full", "Delete versions or other files, then try again.")
    what = error.strerror or type(error).__name__
    return Reason("job_failed", f"The system refused something it needs: {what}", "See the job's log.")


def _out_of_memory(settings: Settings) -> Reason:
    limit_mib = limits.memory_bytes(settings.agent_memory) // 1024**2
    return Reason(
        "out_of_memory",
        f"It needs more memory than the limit of {limit_mib} MiB",
        "Raise SIGNALBOX_AGENT_MEMORY, or use a smaller model.",
    )


def _log_to(path: Path) -> None:
    """Send stdout and stderr of this process, and of all it starts, to *path*."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)


if __name__ == "__main__":
    raise SystemExit(main())
