"""One transition of a rollout in one transaction: row, endpoint's goal, event, and webhooks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from control_plane.domain.rollout import Rollout, RolloutState
from control_plane.errors import ConflictError
from control_plane.registry import endpoints, rollouts
from control_plane.registry.tables import Alias, Event, Json, Version, Webhook, WebhookDelivery
from control_plane.registry.tables import Rollout as Row


def record(
    session: Session,
    row: Row,
    before: Rollout,
    after: Rollout,
    *,
    actor: str,
    action: str,
    message: str,
    at: float,
    protected_aliases: Collection[str] = (),
) -> None:
    """Turn *before* into *after*. Raises ConflictError when *row* no longer is *before*.

    action: `rollout.promoted` and the like; protected_aliases: those that follow the stable version.
    """
    if row.revision != before.revision:
        raise ConflictError(
            f"the rollout moved on meanwhile: it is at revision {row.revision}, not {before.revision}",
            revision=row.revision,
        )
    rollouts.write(row, after)
    was_completed = before.state is RolloutState.COMPLETED
    if after.state is RolloutState.COMPLETED and not was_completed and after.promotes:
        _serve(session, row, row.candidate, row.candidate_handler, at)
        _move_aliases(session, row.stable, row.candidate, protected_aliases)
    elif was_completed and after.state is RolloutState.ROLLING_BACK:
        _serve(session, row, row.stable, row.stable_handler, at)
        _move_aliases(session, row.candidate, row.stable, protected_aliases)
    details = _details(before, after)
    _tell(session, row, actor, action, message, details, at)
    if (before.state, before.step_index) != (after.state, after.step_index):
        _announce(session, row, action, actor, message, details, at)


def created(session: Session, row: Row, *, actor: str, message: str, at: float) -> None:
    """Record that *row* has been added."""
    rollout = rollouts.value_of(row)
    details = _details(rollout, rollout)
    _tell(session, row, actor, "rollout.started", message, details, at)
    _announce(session, row, "rollout.started", actor, message, details, at)


def returned_cold(
    session: Session, row: Row, *, actor: str, action: str, message: str, reason: str, at: float
) -> None:
    """Record that the endpoint went back from the completed rollout *row* after its rollback window.

    It stays completed, and no longer counts as such: see `rollouts.has_completed`.
    """
    before = rollouts.value_of(row)
    after = replace(
        before, reason=reason, reason_code=rollouts.ROLLED_BACK_COLD, revision=before.revision + 1
    )
    rollouts.write(row, after)
    details = {**_details(before, after), "cold": True}
    _tell(session, row, actor, action, message, details, at)
    _announce(session, row, action, actor, message, details, at)


def _details(before: Rollout, after: Rollout) -> Json:
    return {
        "rollout": after.id,
        "endpoint": after.endpoint,
        "stable": after.stable,
        "candidate": after.candidate,
        "from_state": before.state.value,
        "state": after.state.value,
        "step": after.step_index,
        "weight": after.weight,
        "revision": after.revision,
        "reason": after.reason,
        "code": after.reason_code,
    }


def _serve(session: Session, row: Row, version: Version, handler: str, at: float) -> None:
    """Make *version* the endpoint's stable one; its agents run already."""
    endpoint = endpoints.locked(session, row.endpoint)
    expected = {row.stable_version_id, row.candidate_version_id}
    if endpoint is None or endpoint.version_id not in expected:
        raise ConflictError(f"{row.endpoint} serves another version by now")
    if endpoint.version_id == version.id:
        return
    endpoint.version_id, endpoint.handler = version.id, handler
    endpoint.revision += 1
    endpoint.updated_at = at


def _move_aliases(session: Session, old: Version, new: Version, names: Collection[str]) -> None:
    query = select(Alias).where(Alias.version_id == old.id, Alias.name.in_(names))
    for alias in session.scalars(query):
        if alias.model_id == new.model_id:
            alias.version_id = new.id


def _tell(
    session: Session, row: Row, actor: str, action: str, message: str, details: Json, at: float
) -> None:
    subject = f"endpoint/{row.endpoint}"
    session.add(Event(at=at, actor=actor, action=action, subject=subject, message=message, details=details))


def _announce(
    session: Session, row: Row, action: str, actor: str, message: str, details: Json, at: float
) -> None:
    event = {"type": action, "at": at, "actor": actor, "message": message, **details}
    query = select(Webhook).where(or_(Webhook.endpoint.is_(None), Webhook.endpoint == row.endpoint))
    for webhook in session.scalars(query):
        session.add(
            WebhookDelivery(webhook_id=webhook.id, event=event, state="pending", next_at=at, created_at=at)
        )
