"""The whole system in a few figures, and what a person should look at."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import text
from sqlalchemy.orm import Session

from control_plane.domain.endpoint import AgentPhase, EndpointGoal, EndpointHealth
from control_plane.domain.job import JobState
from control_plane.domain.upload import UploadState
from control_plane.domain.views import Attention, EndpointView, Status
from control_plane.errors import SignalboxError
from control_plane.registry import jobs, leases, migrate, uploads, versions
from control_plane.registry import session as sessions
from control_plane.services import endpoints, gateway_client
from control_plane.services.context import Context
from control_plane.telemetry import host

LEADING: Final = "leading"
SERVING: Final = "serving"
_FAILED_JOB_WINDOW_S: Final = 24 * 3600.0
_SHOWN_EACH: Final = 20
_PROBE_FRESH_S: Final = 1.5


def status(ctx: Context) -> Status:
    """Counts, who leads, whether the gateway answers, disk and GPUs, and what needs attention."""
    now = time.time()
    shown = endpoints.list_all(ctx)
    running = [view for view in shown if view.goal == EndpointGoal.RUNNING]
    disk = shutil.disk_usage(_existing(ctx))
    gateway = SERVING if _gateway_answers(ctx.settings.gateway_url) else "not answering"
    with sessions.read(ctx.engine) as session:
        model_count, version_count = versions.count(session)
        job_counts = jobs.count_by_state(session)
        controller = LEADING if leases.is_held(session, leases.CONTROLLER, now) else "not running"
        attention = (
            *_parts_attention(controller, gateway),
            *_disk_attention(ctx, disk.free, disk.total),
            *_endpoint_attention(shown),
            *_job_attention(session, now),
            *_upload_attention(session),
        )
    return Status(
        models=model_count,
        versions=version_count,
        endpoints=sum(view.goal != EndpointGoal.DELETED for view in shown),
        agents_ready=_ready_agents(running),
        agents_wanted=sum(view.replicas for view in running),
        jobs_running=job_counts.get(JobState.RUNNING, 0),
        jobs_queued=job_counts.get(JobState.QUEUED, 0),
        controller=controller,
        gateway=gateway,
        disk_free_bytes=disk.free,
        disk_total_bytes=disk.total,
        gpus=_gpu_names(),
        attention=attention,
    )


def health(ctx: Context) -> dict[str, Any]:
    """What `GET /health` of the web process says: its own state and the registry's. Never raises.

    {"status": "ok" | "degraded", "registry": "ok" | a sentence}
    """
    try:
        with sessions.read(ctx.engine) as session:
            session.execute(text("SELECT 1"))
        current = migrate.is_current(ctx.engine)
    except SignalboxError as error:
        return {"status": "degraded", "registry": error.message}
    if not current:
        return {"status": "degraded", "registry": "The registry must be migrated: run `signalbox migrate`."}
    return {"status": "ok", "registry": "ok"}


def _ready_agents(running: Sequence[EndpointView]) -> int:
    return sum(min(view.ready, view.replicas) for view in running)


def _parts_attention(controller: str, gateway: str) -> Iterator[Attention]:
    if controller != LEADING:
        message = "No controller runs: goals are kept, but nothing is started or stopped."
        yield Attention("controller", "controller", message, "/")
    if gateway != SERVING:
        yield Attention(
            "gateway", "gateway", "The gateway does not answer: clients get no predictions.", "/live"
        )


def _disk_attention(ctx: Context, free: int, total: int) -> Iterator[Attention]:
    if free < total * ctx.settings.disk_floor:
        message = f"{free / total:.0%} of the disk is free; uploads need {ctx.settings.disk_floor:.0%}."
        yield Attention("disk", "disk", message, "/versions")


def _endpoint_attention(shown: Sequence[EndpointView]) -> Iterator[Attention]:
    for view in shown:
        link = f"/endpoints?name={quote(view.name)}"
        for warning in view.warnings:
            yield Attention("endpoint", view.name, warning, link)
        if view.health in (EndpointHealth.CRASH_LOOP, EndpointHealth.DEGRADED):
            failed = next((agent for agent in view.agents if agent.phase == AgentPhase.FAILED), None)
            at = failed.ended_at if failed else None
            yield Attention("endpoint", view.name, f"{view.health.capitalize()}: {view.sentence}", link, at)


def _job_attention(session: Session, now: float) -> Iterator[Attention]:
    for job in jobs.failed_since(session, now - _FAILED_JOB_WINDOW_S, _SHOWN_EACH):
        reason = (job.error or {}).get("message", "no reason given")
        message = f"{job.kind} of {job.subject} failed: {reason}"
        yield Attention("job", job.id, message, f"/jobs?id={quote(job.id)}", job.finished_at)


def _upload_attention(session: Session) -> Iterator[Attention]:
    for upload in uploads.in_state(session, UploadState.NEEDS_INPUT, _SHOWN_EACH):
        needs = " and ".join(upload.found.get("needs", ()))
        message = f"The upload for {upload.model_name} waits for you: {needs}."
        yield Attention("upload", upload.id, message, f"/upload?id={quote(upload.id)}", upload.updated_at)


def _existing(ctx: Context) -> str:
    root = ctx.settings.root
    return str(next(folder for folder in (root, *root.parents) if folder.exists()))


class _Probe:
    """The last answer to "does the gateway answer", shared by all viewers."""

    def __init__(self, gateway_url: str) -> None:
        self._url = gateway_url
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._answers = False

    def answers(self) -> bool:
        with self._lock:
            if time.monotonic() - self._asked_at > _PROBE_FRESH_S:
                self._answers = gateway_client.answers(self._url)
                self._asked_at = time.monotonic()
            return self._answers


@cache
def _probe(gateway_url: str) -> _Probe:
    return _Probe(gateway_url)


def _gateway_answers(gateway_url: str) -> bool:
    return _probe(gateway_url).answers()


@cache
def _gpu_names() -> tuple[str, ...]:
    """Names of the machine's GPUs; they do not change while a process runs."""
    return tuple(gpu.name for gpu in host.gpus())
