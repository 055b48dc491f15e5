"""Profiles as people use them: taken of a version or of an endpoint's agent, kept, compared, exported."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy.orm import Session

from control_plane.domain import profile_comparison, profile_summary
from control_plane.domain.endpoint import AgentPhase
from control_plane.domain.job import JobState
from control_plane.domain.profile import (
    LIVE,
    MAX_NAME_CHARS,
    PROFILE,
    PROFILE_LIVE,
    ProfileDetail,
    ProfileOrder,
    ProfileView,
    Summary,
    Wish,
)
from control_plane.domain.views import Page
from control_plane.errors import ConflictError, InvalidInputError, NotFoundError
from control_plane.registry import endpoints as endpoint_rows
from control_plane.registry import profile_reports
from control_plane.registry import session as sessions
from control_plane.registry.tables import Agent, ProfileReport, new_id
from control_plane.services import (
    events,
    jobs,
    optimization,
    optimization_subjects,
    profile_exports,
    profile_folders,
)
from control_plane.services.context import Context
from control_plane.services.paging import offset, query_text
from serving_agent.contract.profile import KeyFigures, Report

DAY_S: Final = 24 * 3600.0
_WAIT: Final = "Wait until it is done."


def start(ctx: Context, ref: str, wish: Wish | None = None, *, name: str = "", actor: str) -> ProfileView:
    """Queue a profile of *ref*, `model@N` or `model@alias`, in a process of its own.

    Raises NotFoundError, InvalidInputError, ConflictError for a version that cannot be run.
    """
    found = optimization_subjects.workable(ctx, ref)
    return _queue(ctx, found.ref, None, wish or Wish(), name, actor)


def start_live(
    ctx: Context, endpoint: str, wish: Wish | None = None, *, name: str = "", actor: str
) -> ProfileView:
    """Queue a profile of a serving agent of *endpoint*, which goes on serving.

    Raises NotFoundError, InvalidInputError, ConflictError where no agent is ready.
    """
    agent = live_agent(ctx, endpoint)
    return _queue(ctx, agent.ref, endpoint, wish or LIVE, name, actor)


@dataclass(frozen=True, slots=True)
class LiveAgent:
    """A serving agent that can be asked."""

    ref: str
    """The version that it serves."""
    address: str
    """REST address."""
    threads: int
    device: str


def live_agent(ctx: Context, endpoint: str, *, ref: str | None = None) -> LiveAgent:
    """A ready agent of *endpoint*, one that serves *ref* where that is given.

    Raises NotFoundError, ConflictError where there is none.
    """
    with sessions.read(ctx.engine) as session:
        row = endpoint_rows.find(session, endpoint)
        if row is None:
            raise NotFoundError(f"There is no endpoint {endpoint[:80]!r}")
        ready = [each for each in endpoint_rows.shown_agents(session, [row.id]) if _is_ready(each)]
        ready.sort(key=lambda each: each.version_id != row.version_id)
        chosen = [each for each in ready if ref is None or each.version.ref == ref]
        if not chosen:
            raise ConflictError(
                f"No agent of {endpoint} is ready" + (f" with {ref}" if ref else ""),
                next_step="Start the endpoint, or profile its version.",
            )
        agent = chosen[0]
        threads = endpoint_rows.spec_of(agent).threads
        return LiveAgent(agent.version.ref, str(agent.rest_address), threads, agent.device or "cpu")


def get(ctx: Context, report_id: str) -> ProfileView:
    """One profile. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        return _view(ctx, _found(session, report_id))


def detail(ctx: Context, report_id: str) -> ProfileDetail:
    """One profile with its report and what it says in plain words. Raises NotFoundError, GoneError."""
    view = get(ctx, report_id)
    if not view.is_ready:
        return ProfileDetail(view=view, summary=None, report=None)
    found = profile_folders.read(ctx.settings, view.id)
    return ProfileDetail(view=view, summary=_summary(ctx, view, found), report=found)


def report(ctx: Context, report_id: str) -> Report:
    """The report of a finished profile. Raises NotFoundError, ConflictError, GoneError."""
    return profile_folders.read(ctx.settings, _ready(ctx, report_id).id)


def search(
    ctx: Context, *, q: str = "", ref: str | None = None, page: int = 1, page_size: int = 50
) -> Page[ProfileView]:
    """Profiles newest first; *q*: part of a name, version, endpoint or creator."""
    start_at = offset(page, page_size)
    with sessions.read(ctx.engine) as session:
        rows, total = profile_reports.page(
            session, q=query_text(q), ref=ref, offset=start_at, limit=page_size
        )
        return Page(tuple(_view(ctx, row) for row in rows), total, page, page_size)


def rename(ctx: Context, report_id: str, name: str, *, actor: str) -> ProfileView:
    """Give a profile another name; empty takes it away. Raises NotFoundError, InvalidInputError."""
    checked = _checked_name(name)
    with sessions.write(ctx.engine) as session:
        row = _found(session, report_id, lock=True)
        row.name = checked
        _record(session, row, actor, "profile.renamed", f"{actor} named a profile of {row.ref} {checked!r}")
        return _view(ctx, row)


def delete(ctx: Context, report_id: str, *, actor: str) -> None:
    """Delete a profile and its files. Raises NotFoundError, ConflictError while it is taken."""
    with sessions.write(ctx.engine) as session:
        row = _found(session, report_id, lock=True)
        if row.job.state in (JobState.QUEUED, JobState.RUNNING):
            raise ConflictError("The profile is being taken", next_step="Cancel its job first.")
        _record(session, row, actor, "profile.deleted", f"{actor} deleted a profile of {row.ref}")
        session.delete(row)
    profile_folders.remove(ctx.settings, report_id)


def file(ctx: Context, report_id: str, name: str) -> Path:
    """One of the profile's own files. Raises NotFoundError, ConflictError while it is taken."""
    return profile_folders.file(ctx.settings, _ready(ctx, report_id).id, name)


def compare(ctx: Context, a: str, b: str) -> profile_comparison.Comparison:
    """How profile *b* differs from profile *a*. Raises NotFoundError, ConflictError, GoneError."""
    return profile_comparison.compare(report(ctx, a), report(ctx, b))


def csv(ctx: Context, report_id: str, table: str) -> str:
    """The `operators`, `functions`, `layers` or `sweep` of a report as CSV.

    Raises NotFoundError, ConflictError, InvalidInputError.
    """
    return profile_exports.csv(report(ctx, report_id), table)


def html(ctx: Context, report_id: str) -> str:
    """The report as one HTML page that loads nothing. Raises NotFoundError, ConflictError, GoneError."""
    view = _ready(ctx, report_id)
    found = profile_folders.read(ctx.settings, view.id)
    return profile_exports.html(view, _summary(ctx, view, found), found)


def finished(ctx: Context, report_id: str, key: KeyFigures, size_bytes: int) -> bool:
    """Note that the report is written; False where somebody has deleted it meanwhile."""
    with sessions.write(ctx.engine) as session:
        row = profile_reports.find(session, report_id, lock=True)
        if row is None:
            return False
        row.summary, row.size_bytes = msgspec.to_builtins(key), size_bytes
        return True


def _queue(ctx: Context, ref: str, endpoint: str | None, wish: Wish, name: str, actor: str) -> ProfileView:
    checked, now = _checked_name(name), time.time()
    order = ProfileOrder(report_id=new_id(), ref=ref, endpoint=endpoint, wish=wish)
    subject = f"{ref} at {endpoint}" if endpoint else ref
    with sessions.write(ctx.engine) as session:
        kind = PROFILE_LIVE if endpoint else PROFILE
        job = jobs.queue(session, kind, subject=subject, params=msgspec.to_builtins(order), actor=actor)
        session.add(
            ProfileReport(
                id=order.report_id,
                job_id=job.id,
                ref=ref,
                endpoint=endpoint,
                name=checked,
                asked=msgspec.to_builtins(wish),
                created_by=actor,
                created_at=now,
                expires_at=now + ctx.settings.profile_keep_d * DAY_S,
            )
        )
    return get(ctx, order.report_id)


def _summary(ctx: Context, view: ProfileView, found: Report) -> Summary:
    return profile_summary.summarise(found, methods=_methods(ctx, view.ref), live=view.endpoint is not None)


def _methods(ctx: Context, ref: str) -> tuple[str, ...]:
    """Names of optimisation methods that apply to *ref*; none where it is gone."""
    try:
        known = optimization_subjects.known(ctx, ref)
    except NotFoundError:
        return ()
    subject = optimization_subjects.subject(known)
    calibrated = bool(known.examples)
    return tuple(method.name for method in optimization.applicable(subject, calibrated=calibrated))


def _view(ctx: Context, row: ProfileReport) -> ProfileView:
    job = jobs.view(row.job)
    return ProfileView(
        id=row.id,
        name=row.name,
        ref=row.ref,
        endpoint=row.endpoint,
        job_id=row.job_id,
        state=job.state,
        stage=job.stage,
        progress=job.progress,
        time_left_s=job.time_left_s,
        reason=job.reason,
        asked=msgspec.convert(row.asked, Wish),
        summary=msgspec.convert(row.summary, KeyFigures) if row.summary else None,
        files=profile_folders.names(ctx.settings, row.id) if row.summary else (),
        size_bytes=row.size_bytes,
        created_by=row.created_by,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def _ready(ctx: Context, report_id: str) -> ProfileView:
    view = get(ctx, report_id)
    if view.is_ready:
        return view
    if view.reason is not None:
        raise ConflictError(f"There is no report: {view.reason.message}", next_step=view.reason.next_step)
    raise ConflictError(f"There is no report: the profile is {view.state}", next_step=_WAIT)


def _found(session: Session, report_id: str, *, lock: bool = False) -> ProfileReport:
    row = profile_reports.find(session, report_id, lock=lock)
    if row is None:
        raise NotFoundError(f"There is no profile {report_id[:80]!r}")
    return row


def _is_ready(agent: Agent) -> bool:
    return agent.phase == AgentPhase.READY and agent.rest_address is not None


def _checked_name(name: str) -> str:
    stripped = name.strip()
    if len(stripped) > MAX_NAME_CHARS or not stripped.isprintable():
        raise InvalidInputError(f"A name has at most {MAX_NAME_CHARS} printable characters")
    return stripped


def _record(session: Session, row: ProfileReport, actor: str, action: str, message: str) -> None:
    events.record(
        session,
        at=time.time(),
        actor=actor,
        action=action,
        subject=row.ref,
        message=message,
        profile=row.id,
    )
