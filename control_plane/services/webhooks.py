"""Webhooks: addresses that are told of every transition of a rollout."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from control_plane.domain import webhook as messages
from control_plane.domain.names import check_label
from control_plane.errors import ConflictError, NotFoundError
from control_plane.registry import session as sessions
from control_plane.registry import webhooks
from control_plane.registry.tables import Webhook, WebhookDelivery
from control_plane.services import events
from control_plane.services.context import Context

MAX_WEBHOOKS: Final = 50
SUBJECT: Final = "webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookView:
    """One webhook, without its secret."""

    id: str
    url: str
    endpoint: str | None
    """None: rollouts of every endpoint."""
    pending: int
    """Messages on their way."""
    given_up: int
    """Messages of the last days that never got through."""
    last_error: str | None
    created_by: str
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryView:
    """One message on its way, or arrived."""

    id: str
    type: str
    state: str
    """pending, delivered or given_up."""
    attempts: int
    next_at: float
    last_error: str | None
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWebhook:
    """A webhook that was just added; its secret is shown this once."""

    webhook: WebhookView
    secret: str


def add(ctx: Context, url: str, *, actor: str, endpoint: str | None = None) -> NewWebhook:
    """Tell *url* of every transition of the endpoint's rollouts, or of all.

    Messages follow the Standard Webhooks specification and are signed with the secret that is returned, once.
    Raises InvalidInputError, and ConflictError when there are too many.
    """
    messages.check_url(url)
    if endpoint is not None:
        check_label("endpoint", endpoint)
    secret = messages.secret_of(secrets.token_bytes(messages.SECRET_BYTES))
    now = time.time()
    with sessions.write(ctx.engine) as session:
        sessions.lock(session, SUBJECT)
        if len(webhooks.every(session)) >= MAX_WEBHOOKS:
            raise ConflictError(f"There are {MAX_WEBHOOKS} webhooks already", next_step="Remove one first.")
        row = Webhook(url=url, secret=secret, endpoint=endpoint, created_by=actor, created_at=now)
        session.add(row)
        session.flush()
        _record(session, row, actor, "webhook.added", "added", now)
        return NewWebhook(webhook=_view(session, row, {}), secret=secret)


def list_all(ctx: Context) -> tuple[WebhookView, ...]:
    """All webhooks, the oldest first."""
    with sessions.read(ctx.engine) as session:
        counts = webhooks.counts(session)
        return tuple(_view(session, row, counts) for row in webhooks.every(session))


def deliveries(ctx: Context, webhook_id: str, *, limit: int = 50) -> tuple[DeliveryView, ...]:
    """The webhook's latest messages, newest first. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        _found(session, webhook_id)
        found = webhooks.deliveries(session, webhook_id, limit=max(1, min(limit, 200)))
        return tuple(_delivery_view(row) for row in found)


def remove(ctx: Context, webhook_id: str, *, actor: str) -> None:
    """Tell it nothing more, messages on their way included. Raises NotFoundError."""
    with sessions.write(ctx.engine) as session:
        row = _found(session, webhook_id)
        _record(session, row, actor, "webhook.removed", "removed", time.time())
        session.delete(row)


def _found(session: Session, webhook_id: str) -> Webhook:
    row = session.get(Webhook, webhook_id)
    if row is None:
        raise NotFoundError(
            f"There is no webhook {webhook_id[:80]!r}", next_step="See `signalbox webhook list`."
        )
    return row


def _record(session: Session, row: Webhook, actor: str, action: str, did: str, at: float) -> None:
    whose = f"rollouts of {row.endpoint}" if row.endpoint else "all rollouts"
    events.record(
        session,
        at=at,
        actor=actor,
        action=action,
        subject=f"{SUBJECT}/{row.id}",
        message=f"{actor} {did} the webhook {row.url} for {whose}",
        endpoint=row.endpoint,
    )


def _view(session: Session, row: Webhook, counts: dict[tuple[str, str], int]) -> WebhookView:
    return WebhookView(
        id=row.id,
        url=row.url,
        endpoint=row.endpoint,
        pending=counts.get((row.id, webhooks.PENDING), 0),
        given_up=counts.get((row.id, webhooks.GIVEN_UP), 0),
        last_error=webhooks.last_error(session, row.id),
        created_by=row.created_by,
        created_at=row.created_at,
    )


def _delivery_view(row: WebhookDelivery) -> DeliveryView:
    return DeliveryView(
        id=row.id,
        type=str(row.event.get("type", "")),
        state=row.state,
        attempts=row.attempts,
        next_at=row.next_at,
        last_error=row.last_error,
        created_at=row.created_at,
    )
