"""Changing an endpoint's goal within one transaction: what endpoints and deployment files have in common."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from control_plane.domain import options as serving_options
from control_plane.domain.endpoint import EndpointGoal
from control_plane.domain.goal import Goal, Wish, check_wish
from control_plane.domain.names import check_label
from control_plane.domain.verdict import refusal
from control_plane.errors import ConflictError, InvalidInputError, NotFoundError
from control_plane.registry import endpoints
from control_plane.registry import events as event_rows
from control_plane.registry import session as sessions
from control_plane.registry.tables import Endpoint, Version
from control_plane.services import architectures, catalogs, events, rollout_conflicts, versions, waivers
from control_plane.services.context import Context
from serving_agent.contract.options import Execution

DEFAULTS = Wish(replicas=1, threads=1, device="auto")
"""Settings of a new endpoint that nobody named; the handler is the version's own."""

CHANGES = (
    "endpoint.deployed", "endpoint.scaled", "endpoint.restarted", "endpoint.stopped", "endpoint.started",
    "endpoint.deleted",
)  # fmt: skip
"""Actions that change a goal."""


def subject(name: str) -> str:
    """How events name an endpoint."""
    return f"endpoint/{name}"


def locked(session: Session, name: str, expected_revision: int | None) -> Endpoint:
    """The endpoint, locked. Raises NotFoundError, or ConflictError when its goal has another revision."""
    _lock(session, name)
    row = endpoints.locked(session, name)
    if row is None:
        raise NotFoundError(f"There is no endpoint {name!r}")
    _check_revision(session, row, expected_revision)
    return row


def deploy(
    ctx: Context,
    session: Session,
    name: str,
    version_ref: str,
    wish: Wish,
    *,
    actor: str,
    expected_revision: int | None = None,
    state: EndpointGoal = EndpointGoal.RUNNING,
    waiver: str | None = None,
    returning: bool = False,
) -> bool:
    """Make *name* serve *version_ref* with the settings of *wish*; whether that changed anything.

    state: RUNNING, or STOPPED to keep it for later. A new endpoint, and one that was being deleted, take
    defaults for settings that *wish* leaves open. waiver: why a variant that the lab rejected is deployed all
    the same; returning: whether it goes back to what it served before, which needs none.
    """
    check_label("endpoint", name)
    check_wish(wish, cpu_count=os.cpu_count() or 1)
    _lock(session, name)
    version = versions.find(session, version_ref, lock=True)
    row = endpoints.locked(session, name)
    _check_revision(session, row, expected_revision)
    before = None if row is None or row.goal == EndpointGoal.DELETED else goal_of(row)
    after = _goal_after(before, version, wish, state)
    if after == before:
        return False
    check_deployable(ctx, version, after)
    if not returning and (before is None or before.version_id != version.id):
        waivers.check(session, version, waiver, wanted=f"deployed to {name}", actor=actor)
    if before is not None:
        _respect_rollout(ctx, session, name, before, after, actor)
    _store(session, row, name, after, actor)
    _record_deploy(session, name, version, before, after, actor)
    return True


def change(session: Session, row: Endpoint, goal: Goal, *, actor: str, action: str, did: str) -> bool:
    """Set another goal and record who did it; whether that changed anything."""
    if goal == goal_of(row):
        return False
    _write(row, goal)
    events.record(
        session,
        at=row.updated_at,
        actor=actor,
        action=action,
        subject=subject(row.name),
        message=f"{actor} {did}",
        revision=row.revision,
    )
    return True


def goal_of(row: Endpoint) -> Goal:
    """The goal that *row* holds."""
    return Goal(
        state=row.goal,
        version_id=row.version_id,
        replicas=row.replicas,
        threads=row.threads,
        device=row.device,
        handler=row.handler,
        memory_bytes=row.memory_bytes,
        restart=row.restart,
        options=endpoints.options(row),
    )


def _lock(session: Session, name: str) -> None:
    sessions.lock(session, subject(name))
    rollout_conflicts.lock(session, name)


def _goal_after(before: Goal | None, version: Version, wish: Wish, state: EndpointGoal) -> Goal:
    base = before or Goal(
        state=EndpointGoal.RUNNING,
        version_id=version.id,
        replicas=DEFAULTS.replicas or 1,
        threads=DEFAULTS.threads or 1,
        device=DEFAULTS.device or "auto",
        handler=version.handler,
        memory_bytes=None,
        restart=0,
    )
    return replace(base.with_wish(wish), state=state, version_id=version.id)


def check_deployable(ctx: Context, version: Version, goal: Goal) -> None:
    """Raise ConflictError or InvalidInputError when *version* cannot be served as *goal* says."""
    if version.archived_at is not None:
        raise ConflictError(f"{version.ref} is archived", next_step="Restore it, or deploy another version.")
    refused = refusal(version.ref, version.verdict)
    if refused:
        next_step = "Deploy another version; the version's page says what was found."
        raise ConflictError(refused, next_step=next_step)
    files = [file["path"] for file in version.artifact.files]
    catalogs.check_handler(ctx, goal.handler, version.format, files)
    architectures.check_served(ctx, version.format, version.artifact_digest)
    _check_execution(version, goal.options.execution)


def _check_execution(version: Version, wanted: Execution) -> None:
    """Refuse options of torch that do not apply to the version's format."""
    if wanted.compile and version.format == "torchscript":
        raise InvalidInputError(
            f"torch.compile does not apply to TorchScript, which {version.ref} is",
            next_step="Turn the option off, or register the model as an exported program.",
        )
    if not wanted.is_default and not catalogs.is_run_by_torch(version.format):
        raise InvalidInputError(
            f"The execution options change how torch runs a model, and {version.ref} is not run by torch",
            next_step="Turn them off.",
        )


def _respect_rollout(
    ctx: Context, session: Session, name: str, before: Goal, after: Goal, actor: str
) -> None:
    """Refuse what a standing rollout does not bear; end it, and what is kept warm, where *after* asks so."""
    if after != replace(before, state=after.state, replicas=after.replicas):
        rollout_conflicts.refuse(session, name, f"A change of {name}")
    if after.state == EndpointGoal.STOPPED != before.state:
        why = f"{actor} stopped {name}"
        rollout_conflicts.end_with_endpoint(session, ctx.settings, name, actor=actor, why=why, at=time.time())
    elif after.version_id != before.version_id:
        rollout_conflicts.close_window(
            session, name, actor=actor, why=f"{actor} deployed another version", at=time.time()
        )


def _store(session: Session, row: Endpoint | None, name: str, goal: Goal, actor: str) -> None:
    if row is not None:
        _write(row, goal)
        return
    now = time.time()
    session.add(
        Endpoint(
            name=name,
            goal=goal.state,
            version_id=goal.version_id,
            replicas=goal.replicas,
            threads=goal.threads,
            device=goal.device,
            handler=goal.handler,
            memory_bytes=goal.memory_bytes,
            options=msgspec.to_builtins(goal.options),
            restart=0,
            revision=1,
            serving_version_id=None,
            created_by=actor,
            created_at=now,
            updated_at=now,
        )
    )
    session.flush()


def _write(row: Endpoint, goal: Goal) -> None:
    row.goal, row.version_id, row.restart = goal.state, goal.version_id, goal.restart
    row.replicas, row.threads, row.device = goal.replicas, goal.threads, goal.device
    row.handler, row.memory_bytes = goal.handler, goal.memory_bytes
    row.options = msgspec.to_builtins(goal.options)
    row.revision += 1
    row.updated_at = time.time()


def _record_deploy(
    session: Session, name: str, version: Version, before: Goal | None, after: Goal, actor: str
) -> None:
    changed = _changes(before, after)
    settings = ", ".join(f"{field} {serving_options.told(new)}" for field, (_, new) in changed.items())
    events.record(
        session,
        at=time.time(),
        actor=actor,
        action="endpoint.deployed",
        subject=subject(name),
        message=f"{actor} deployed {version.ref} to {name}" + (f" with {settings}" if settings else ""),
        version=version.ref,
        replicas=after.replicas,
        changed=changed,
    )


def _changes(before: Goal | None, after: Goal) -> dict[str, list[Any]]:
    """Old and new value of every setting that differs; of a new endpoint, the options that are not usual."""
    new = {**_settings(after), **serving_options.flat(after.options)}
    if before is not None:
        old = {**_settings(before), **serving_options.flat(before.options)}
    else:
        old = {**_settings(after), **serving_options.flat(serving_options.DEFAULT)}
    return {name: [old[name], value] for name, value in new.items() if old[name] != value}


def _settings(goal: Goal) -> dict[str, Any]:
    fields = ("replicas", "threads", "device", "handler", "memory_bytes")
    return {field: getattr(goal, field) for field in fields}


def _check_revision(session: Session, row: Endpoint | None, expected: int | None) -> None:
    """Refuse to overwrite what somebody else wrote since the caller looked; 0 means "is not there yet"."""
    present = row.revision if row else 0
    if expected is None or expected == present:
        return
    if row is None:
        raise ConflictError("The endpoint was deleted meanwhile", next_step="Look again.")
    last = event_rows.latest(session, subject(row.name), actions=CHANGES)
    who = f" by {last.actor} {ago(time.time() - last.at)}: {last.message}" if last else ""
    raise ConflictError(
        f"{row.name} was changed meanwhile{who}. It is now at revision {present}, "
        f"serving {row.version.ref} with {row.replicas} replicas ({row.goal})",
        next_step="Look at what it is now and repeat the change if you still want it.",
        revision=present,
        version=row.version.ref,
        replicas=row.replicas,
        changed_by=last.actor if last else None,
        changed_at=last.at if last else None,
    )


def ago(seconds: float) -> str:
    """*seconds* in words: `40 s ago`, `3 min ago`."""
    if seconds < 100:
        return f"{max(0, round(seconds))} s ago"
    return f"{round(seconds / 60)} min ago" if seconds < 6000 else f"{round(seconds / 3600)} h ago"
