"""A job's order as its row holds it, for the worker that cleans up after a killed process."""

from __future__ import annotations

from typing import Any

from control_plane.registry import session as sessions
from control_plane.registry.tables import Job
from control_plane.services.context import Context


def params(ctx: Context, job_id: str) -> tuple[str, dict[str, Any], int]:
    """Return (kind, parameters, attempt) of a job that exists."""
    with sessions.read(ctx.engine) as session:
        job = session.get_one(Job, job_id)
        return job.kind, dict(job.params), int(job.attempt)
