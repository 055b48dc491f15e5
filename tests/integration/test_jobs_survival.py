"""The worker under accidents: nothing is lost, nothing runs twice, nothing is left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from control_plane.domain.job import JobState
from control_plane.services import jobs, uploads, versions
from control_plane.services.context import Context
from control_plane.services.jobs import RunningJob
from tests.fakes import checkpoints, registry
from tests.fakes.waiting import wait_until


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    opened = registry.open_home(tmp_path / "home")
    yield opened
    opened.engine.dispose()


def submit_example(ctx: Context) -> str:
    return jobs.submit(ctx, "example", subject="digits", params={}, actor="ana").id


def running(ctx: Context, job_id: str, stage: str = "") -> RunningJob:
    """Wait until the job runs and has come to *stage*."""

    def look() -> RunningJob | None:
        found = next((job for job in jobs.running(ctx) if job.id == job_id), None)
        return found if found and jobs.get(ctx, job_id).stage.startswith(stage) else None

    return wait_until(look, timeout_s=60, what=lambda: checkpoints.described(ctx, job_id), pause_s=0.01)


def pid_of(job: RunningJob) -> int:
    assert job.pid is not None
    return job.pid


def model_count(ctx: Context) -> int:
    return versions.search(ctx, model="digits").total


def test_killed_worker_loses_nothing_and_its_job_is_not_run_twice(ctx: Context) -> None:
    worker = checkpoints.start_worker(ctx)
    job_id = submit_example(ctx)
    first = running(ctx, job_id, "data")
    worker.kill()
    worker.wait()
    assert psutil.pid_exists(pid_of(first))
    with checkpoints.worker(ctx):
        assert pid_of(running(ctx, job_id)) == first.pid
        done = checkpoints.finished(ctx, job_id)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 1)
    assert model_count(ctx) == 2


def test_killed_job_is_run_again_once_more_and_makes_no_version_twice(ctx: Context) -> None:
    with checkpoints.worker(ctx):
        job_id = submit_example(ctx)
        first = running(ctx, job_id, "train digits@2")
        psutil.Process(pid_of(first)).kill()
        done = checkpoints.finished(ctx, job_id)
    assert (done.state, done.attempt) == (JobState.SUCCEEDED, 2)
    assert done.result is not None
    assert done.result["versions"] == ["digits@1", "digits@2"]
    assert model_count(ctx) == 2


def test_job_that_dies_every_time_fails_with_a_reason(ctx: Context) -> None:
    with checkpoints.worker(ctx):
        job_id = submit_example(ctx)
        killed: set[int] = set()
        while len(killed) < jobs.MAX_ATTEMPTS:
            found = next((job for job in jobs.running(ctx) if job.pid not in killed), None)
            if found and found.pid:
                psutil.Process(found.pid).kill()
                killed.add(found.pid)
            time.sleep(0.02)
        done = checkpoints.finished(ctx, job_id)
    assert done.state == JobState.FAILED
    assert done.reason is not None
    assert done.reason.code == "process_died"
    assert done.reason.next_step


def test_cancelled_training_ends(ctx: Context) -> None:
    with checkpoints.worker(ctx):
        job_id = submit_example(ctx)
        job = running(ctx, job_id, "train")
        jobs.cancel(ctx, job_id, actor="ana")
        done = checkpoints.finished(ctx, job_id)
        assert done.state == JobState.CANCELLED
        wait_until(
            lambda: not psutil.pid_exists(pid_of(job)), timeout_s=3, what=lambda: "the process is still there"
        )


def test_cancelled_job_that_does_not_listen_is_killed(ctx: Context) -> None:
    with checkpoints.worker(ctx):
        job_id = submit_example(ctx)
        job = running(ctx, job_id, "data")
        psutil.Process(pid_of(job)).suspend()
        jobs.cancel(ctx, job_id, actor="ana")
        assert checkpoints.finished(ctx, job_id).state == JobState.CANCELLED


def test_ended_worker_leaves_no_process_and_its_job_in_the_queue(ctx: Context) -> None:
    with checkpoints.worker(ctx):
        job_id = submit_example(ctx)
        running(ctx, job_id, "data")
    assert jobs.get(ctx, job_id).state == JobState.QUEUED


def test_queued_job_starts_at_once(ctx: Context) -> None:
    with checkpoints.worker(ctx):
        wait_until(lambda: checkpoints.job_processes(ctx), timeout_s=20, what=lambda: "no process is ready")
        job_id = submit_example(ctx)
        running(ctx, job_id)
        job = jobs.get(ctx, job_id)
        assert job.started_at is not None
        assert job.started_at - job.created_at < 3.0  # 0.2 s of polling on a busy machine
        jobs.cancel(ctx, job_id, actor="ana")
        checkpoints.finished(ctx, job_id)


def test_cancelled_check_cancels_its_upload(ctx: Context) -> None:
    upload = checkpoints.send_bytes(ctx, {"model.pt": b"not yet looked at"})
    assert upload.job_id is not None
    uploads.cancel(ctx, upload.id, actor="ana")
    with checkpoints.worker(ctx):
        assert checkpoints.finished(ctx, upload.job_id).state == JobState.CANCELLED
    assert uploads.get(ctx, upload.id).state == "cancelled"
