"""Uploads as people make them: received files on disk, and a registry whose worker really runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from control_plane.domain.job import FINAL_STATES
from control_plane.domain.views import JobView, UploadView
from control_plane.services import jobs, uploads
from control_plane.services.context import Context
from tests.fakes.waiting import wait_until


def send(
    ctx: Context, source: Path, *, model: str = "mine", actor: str = "ana", **declared: Any
) -> UploadView:
    """Upload the file *source*, or all files below the folder *source*, and have them checked."""
    root = source if source.is_dir() else source.parent
    paths = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    return send_bytes(
        ctx,
        {path.relative_to(root).as_posix(): path.read_bytes() for path in paths},
        model=model,
        actor=actor,
        **declared,
    )


def send_bytes(
    ctx: Context, files: Mapping[str, bytes], *, model: str = "mine", actor: str = "ana", **declared: Any
) -> UploadView:
    """Upload *files*, content by path, and have them checked."""
    sizes = [(path, len(content)) for path, content in files.items()]
    upload = uploads.create(ctx, model=model, files=sizes, actor=actor, **declared)
    for path, content in files.items():
        sink = uploads.sink(ctx, upload.id, path)
        sink.write(content)
        sink.commit()
    return uploads.complete(ctx, upload.id, actor=actor)


@contextmanager
def worker(ctx: Context) -> Iterator[subprocess.Popen[bytes]]:
    """A running worker of *ctx*; ended, with all it started, at the end."""
    process = start_worker(ctx)
    try:
        yield process
    finally:
        stop_worker(ctx, process)


def start_worker(ctx: Context) -> subprocess.Popen[bytes]:
    """Start a worker."""
    log = (ctx.settings.logs_dir / "worker.log").open("ab")
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", "control_plane.jobs.worker"],
            env=ctx.settings.child_environment(),
            stderr=log,
            stdout=log,
        )


def stop_worker(ctx: Context, process: subprocess.Popen[bytes]) -> None:
    """End a worker as `signalbox up` does; processes of jobs that outlive it are a mistake."""
    process.terminate()
    process.wait(20)
    wait_until(  # a finished job's process may be about to end
        lambda: not job_processes(ctx), timeout_s=5, what=lambda: f"left behind: {job_processes(ctx)}"
    )


def job_processes(ctx: Context) -> list[psutil.Process]:
    """Processes of jobs and of standbys that belong to the home of *ctx*."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any("control_plane.jobs." in part for part in process.info["cmdline"] or ()):
            try:
                if process.environ().get("SIGNALBOX_HOME") == str(ctx.settings.home):
                    found.append(process)
            except psutil.Error:
                continue
    return found


def finished(ctx: Context, job_id: str | None, timeout_s: float = 90) -> JobView:
    """Wait until the job has ended, and return it."""
    assert job_id is not None

    def look() -> JobView | None:
        job = jobs.get(ctx, job_id)
        return job if job.state in FINAL_STATES else None

    return wait_until(look, timeout_s=timeout_s, what=lambda: described(ctx, job_id))


def described(ctx: Context, job_id: str) -> str:
    """What is known of a job, for the message of a failed test."""
    worker_log = (ctx.settings.logs_dir / "worker.log").read_text()[-3000:]
    return f"{jobs.get(ctx, job_id)}\n" + "\n".join(jobs.log(ctx, job_id)) + "\nworker:\n" + worker_log


def checked(ctx: Context, upload: UploadView, timeout_s: float = 90) -> UploadView:
    """Wait until the upload's check has ended, and return the upload."""
    finished(ctx, upload.job_id, timeout_s)
    return uploads.get(ctx, upload.id)
