"""Deployments files: say what would change, or change it, all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from control_plane.domain import options as serving_options
from control_plane.domain.deployments import Change, Deployments, Present, plan, resolve
from control_plane.domain.endpoint import EndpointGoal
from control_plane.domain.names import parse_version_ref
from control_plane.errors import SignalboxError
from control_plane.registry import endpoints, versions
from control_plane.registry import session as sessions
from control_plane.registry.tables import Endpoint
from control_plane.services import goals
from control_plane.services import versions as version_service
from control_plane.services.context import Context
from control_plane.services.deployments_file import parse

__all__ = ["Change", "apply", "plan_changes"]


class _Undo(Exception):  # noqa: N818  ends a trial transaction; nothing went wrong
    """Roll the transaction back."""


def plan_changes(ctx: Context, text: str) -> tuple[Change, ...]:
    """What applying the deployments file *text* would change; empty when nothing. Raises as `apply` does."""
    return apply(ctx, text, actor="plan", dry_run=True)


def apply(ctx: Context, text: str, *, actor: str, dry_run: bool = False) -> tuple[Change, ...]:
    """Set aliases and deploy endpoints as the file says, in one transaction; returns what changed.

    Applying it again changes nothing. Endpoints and aliases that the file does not name stay as they are. A
    dry run goes the same way and takes everything back at its end. Raises InvalidInputError with line and
    column for a faulty file; other errors of the deployment begin with the line they belong to.
    """
    wanted = parse(text)
    changes: tuple[Change, ...] = ()
    try:
        with sessions.write(ctx.engine) as session:
            present = _present(session, wanted)
            _carry_out(ctx, session, wanted, actor)
            changes = plan(wanted, present)
            if dry_run:
                raise _Undo
    except _Undo:
        pass
    return changes


def _carry_out(ctx: Context, session: Session, wanted: Deployments, actor: str) -> None:
    protected = ctx.settings.protected_aliases
    for alias in wanted.aliases:
        with _at(alias.line):
            version_service.point_alias(
                session, alias.model, alias.alias, alias.number, actor=actor, protected=protected
            )
    session.flush()
    for each in wanted.deployments:
        with _at(each.line):
            goals.deploy(
                ctx, session, each.endpoint, str(each.version), each.wish, actor=actor, state=each.state
            )


def _present(session: Session, wanted: Deployments) -> Present:
    aliases = _aliases(session, wanted)
    known = Present(aliases=aliases)
    rows = (endpoints.find(session, each.endpoint) for each in wanted.deployments)
    refs = {resolve(each.version, wanted, known) for each in wanted.deployments}
    found = ((ref, versions.find(session, parse_version_ref(ref))) for ref in refs)
    return Present(
        aliases=aliases,
        endpoints={row.name: _settings(row) for row in rows if row and row.goal != EndpointGoal.DELETED},
        handlers={ref: version.handler for ref, version in found if version},
    )


def _aliases(session: Session, wanted: Deployments) -> dict[tuple[str, str], int]:
    names = {each.model for each in wanted.aliases} | {each.version.model for each in wanted.deployments}
    models = {row.id: row.name for name in names if (row := versions.find_model(session, name))}
    return {
        (models[model_id], alias): number
        for model_id, numbers in versions.aliases_of_models(session, list(models)).items()
        for alias, number in numbers.items()
    }


def _settings(row: Endpoint) -> dict[str, Any]:
    return {
        "version": row.version.ref,
        "state": row.goal,
        "replicas": row.replicas,
        "threads": row.threads,
        "device": row.device,
        "handler": row.handler,
        "memory_bytes": row.memory_bytes,
        "options": serving_options.nested(endpoints.options(row)),
    }


@contextmanager
def _at(line: int) -> Iterator[None]:
    """Let errors say which line of the file they belong to."""
    try:
        yield
    except SignalboxError as error:
        details = {**error.details, "line": line}
        raise type(error)(f"line {line}: {error.message}", next_step=error.next_step, **details) from error
