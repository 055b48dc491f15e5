"""What an endpoint asks of every rollout: read and set."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from control_plane.domain import rollout, rollout_policy
from control_plane.domain.endpoint import EndpointGoal
from control_plane.domain.rollout_policy import RolloutPolicy
from control_plane.errors import ConflictError, InvalidInputError, NotFoundError
from control_plane.registry import endpoints
from control_plane.registry import session as sessions
from control_plane.registry.tables import Endpoint, GoldenSet, Version
from control_plane.services import events, goals
from control_plane.services.context import Context

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
"""Names that HTTP headers and cookies may have (RFC 9110 token)."""


def get(ctx: Context, endpoint: str) -> RolloutPolicy:
    """The endpoint's policy. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        return rollout_policy.parse(_found(session, endpoint).rollout_policy)


def put(ctx: Context, endpoint: str, policy: Mapping[str, Any], *, actor: str) -> RolloutPolicy:
    """Make *policy* the endpoint's whole policy; what it does not name takes its default. Idempotent.

    It holds for a standing rollout at once where it is about traffic (tester header, sticky clients), and for
    the next one otherwise. Raises NotFoundError, ConflictError, and InvalidInputError naming what is wrong.
    """
    wanted = rollout_policy.parse(policy)
    with sessions.write(ctx.engine) as session:
        row = goals.locked(session, endpoint, None)
        if row.goal == EndpointGoal.DELETED:
            raise ConflictError(f"{endpoint} is being deleted")
        before = rollout_policy.parse(row.rollout_policy)
        if wanted == before:
            return wanted
        _check(session, row, wanted)
        row.rollout_policy = msgspec.to_builtins(wanted)
        changed = _changes(before, wanted)
        events.record(
            session,
            at=time.time(),
            actor=actor,
            action="endpoint.rollout_policy_set",
            subject=goals.subject(endpoint),
            message=f"{actor} set the rollout policy of {endpoint}: "
            + ", ".join(f"{name} {_told(new)}" for name, (_, new) in changed.items()),
            changed=changed,
        )
    return wanted


def change(ctx: Context, endpoint: str, changes: Mapping[str, Any], *, actor: str) -> RolloutPolicy:
    """Change some fields of the policy; None takes a field back to its default. Raises as `put` does."""
    present = msgspec.to_builtins(get(ctx, endpoint))
    kept = {name: value for name, value in present.items() if name not in changes}
    given = {name: value for name, value in changes.items() if value is not None}
    unknown = sorted(set(changes) - set(present))
    if unknown:
        raise InvalidInputError(f"a rollout policy has no {unknown[0][:40]!r}; it has {', '.join(present)}")
    return put(ctx, endpoint, {**kept, **given}, actor=actor)


def _found(session: Session, name: str) -> Endpoint:
    row = endpoints.find(session, name)
    if row is None:
        raise NotFoundError(f"There is no endpoint {name[:80]!r}", next_step="See the list of endpoints.")
    return row


def _check(session: Session, row: Endpoint, policy: RolloutPolicy) -> None:
    if policy.sticky is not None and not _TOKEN.fullmatch(policy.sticky.name):
        raise InvalidInputError(f"{policy.sticky.name[:40]!r} is no name of a {policy.sticky.kind}")
    if not 0 <= policy.golden_margin < 1:  # not a number is in no range
        raise InvalidInputError("golden_margin must be at least 0 and below 1")
    if not 0 <= policy.warm_s <= rollout.MAX_BAKE_S:
        raise InvalidInputError(f"warm_s must be from 0 to {rollout.MAX_BAKE_S:g}")
    if policy.staging_endpoint is not None:
        _check_staging(session, row, policy.staging_endpoint)
    if policy.golden_set is not None:
        _check_golden_set(session, row, policy.golden_set)


def _check_staging(session: Session, row: Endpoint, staging: str) -> None:
    if staging == row.name:
        raise InvalidInputError("an endpoint cannot be its own staging endpoint")
    if endpoints.find(session, staging) is None:
        raise NotFoundError(
            f"There is no endpoint {staging[:80]!r} to stage at", next_step="Deploy it first."
        )


def _check_golden_set(session: Session, row: Endpoint, digest: str) -> None:
    model_id = session.get_one(Version, row.version_id).model_id
    query = select(GoldenSet.id).where(GoldenSet.digest == digest, GoldenSet.model_id == model_id)
    if session.scalar(query.limit(1)) is None:
        raise NotFoundError(
            f"{row.version.model.name} has no golden set {digest[:80]!r}",
            next_step="Add it to the model first.",
        )


def _changes(before: RolloutPolicy, after: RolloutPolicy) -> dict[str, list[Any]]:
    old, new = msgspec.to_builtins(before), msgspec.to_builtins(after)
    return {name: [old[name], new[name]] for name in new if old[name] != new[name]}


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(str(each) for each in value.values())
    return "none" if value is None else str(value)
