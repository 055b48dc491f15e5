"""`profile`: takes a profile of a version, or as `profile_live` of an agent; keeps its report."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from control_plane.domain import calibration
from control_plane.domain.profile import PROFILE, ProfileOrder
from control_plane.domain.views import Reason
from control_plane.jobs import limits, profiling
from control_plane.jobs.base import Progress
from control_plane.services import optimization_subjects, profile_folders
from control_plane.services import profiling as profiles
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob, JobCancelled
from serving_agent.contract import profile as contract
from serving_agent.contract.profile import Report

EXAMPLE_ROWS: Final = 64
"""Examples of a version that requests are made of, at most."""


class Profile:
    """Parameters: `ProfileOrder`. Result: {"profile", "wall_s", "top", "top_share"}."""

    name = PROFILE
    title = "Take a profile"
    submittable = False
    description = "Measures where the time of a request goes, in a version or in a serving agent."

    def run(self, ctx: Context, job: ClaimedJob, progress: Progress) -> Mapping[str, Any]:
        """Take it and keep the report. Raises JobFailedError where there is none."""
        order = msgspec.convert(job.params, ProfileOrder)
        out = profile_folders.begin(ctx.settings, order.report_id)
        report = _live(ctx, order, out, progress) if order.endpoint else _version(ctx, order, out, progress)
        progress("keep the report", 0.97)
        size = profile_folders.finish(ctx.settings, order.report_id)
        if not profiles.finished(ctx, order.report_id, report.key, size):
            profile_folders.remove(ctx.settings, order.report_id)
            raise JobCancelled(job.id)
        profile_folders.expire(ctx, time.time())
        key = report.key
        return {
            "profile": order.report_id,
            "wall_s": key.wall_s,
            "top": key.top,
            "top_share": key.top_share,
        }

    def ended(self, ctx: Context, params: Mapping[str, Any], reason: Reason | None) -> None:
        """Leave no half of a report, whatever the reason: the job's row tells it."""
        del reason
        profile_folders.abandon(ctx.settings, str(params["report_id"]))


def _version(ctx: Context, order: ProfileOrder, out: Path, progress: Progress) -> Report:
    found = optimization_subjects.workable(ctx, order.ref)
    settings, wish = ctx.settings, order.wish
    served = found.served
    given = [each["inputs"] for each in found.examples[:EXAMPLE_ROWS]] if wish.input == "examples" else []
    rows = tuple(row for row in given if not calibration.misfit(row, served))
    asked = contract.ProfileOrder(
        folder=str(found.folder),
        format=found.format,
        handler=found.handler,
        signature=found.signature,
        labels=found.labels,
        allowed_handlers=settings.handlers,
        rows=rows,
        batch=wish.batch,
        requests=wish.requests,
        seconds=wish.seconds,
        take=wish.take,
        sweep=wish.sweep,
        rate_hz=wish.rate_hz,
        out=str(out),
        threads=min(wish.threads, os.cpu_count() or 1),  # more would only take turns
        memory_bytes=limits.memory_bytes(settings.agent_memory),
    )
    return profiling.of_version(asked, settings.child_environment(), progress)


def _live(ctx: Context, order: ProfileOrder, out: Path, progress: Progress) -> Report:
    agent = profiles.live_agent(ctx, str(order.endpoint), ref=order.ref)
    return profiling.of_agent(agent.address, order, agent.threads, agent.device, out, progress)


KIND: Final = Profile()
