"""Queries about webhooks and what is on its way to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from control_plane.registry.tables import Webhook, WebhookDelivery

PENDING = "pending"
DELIVERED = "delivered"
GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """One delivery whose time has come, with all that sending it needs."""

    id: str
    webhook_id: str
    url: str
    secret: str
    event: dict[str, object]
    attempts: int
    created_at: float


def every(session: Session) -> Sequence[Webhook]:
    """All webhooks, the oldest first."""
    return session.scalars(select(Webhook).order_by(Webhook.created_at, Webhook.id)).all()


def counts(session: Session) -> dict[tuple[str, str], int]:
    """How many deliveries there are by (webhook id, state)."""
    columns = (WebhookDelivery.webhook_id, WebhookDelivery.state)
    found = session.execute(select(*columns, func.count()).group_by(*columns))
    return {(row[0], row[1]): row[2] for row in found}


def deliveries(session: Session, webhook_id: str, *, limit: int) -> Sequence[WebhookDelivery]:
    """The webhook's latest deliveries, newest first."""
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    newest = query.order_by(WebhookDelivery.created_at.desc(), WebhookDelivery.id).limit(limit)
    return session.scalars(newest).all()


def last_error(session: Session, webhook_id: str) -> str | None:
    """Why the latest delivery that is not through has failed last."""
    query = (
        select(WebhookDelivery.last_error)
        .where(WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.state != DELIVERED)
        .order_by(WebhookDelivery.created_at.desc())
        .limit(1)
    )
    return session.scalar(query)


def due(session: Session, now: float, *, most_each: int) -> list[Due]:
    """Pending deliveries whose time has come, the oldest first; *most_each* of every webhook at most."""
    place = func.row_number().over(
        partition_by=WebhookDelivery.webhook_id, order_by=(WebhookDelivery.created_at, WebhookDelivery.id)
    )
    waiting = (
        select(WebhookDelivery.id, place.label("place"))
        .where(WebhookDelivery.state == PENDING, WebhookDelivery.next_at <= now)
        .subquery()
    )
    query = (
        select(WebhookDelivery, Webhook)
        .join(waiting, waiting.c.id == WebhookDelivery.id)
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .where(waiting.c.place <= most_each)
        .order_by(WebhookDelivery.created_at, WebhookDelivery.id)
    )
    return [
        Due(
            id=delivery.id,
            webhook_id=webhook.id,
            url=webhook.url,
            secret=webhook.secret,
            event=delivery.event,
            attempts=delivery.attempts,
            created_at=delivery.created_at,
        )
        for delivery, webhook in session.execute(query)
    ]


def settle(session: Session, delivery_id: str, state: str, *, attempts: int, error: str | None) -> None:
    """Record that a delivery is over: DELIVERED or GIVEN_UP."""
    _change(session, delivery_id, state=state, attempts=attempts, last_error=error)


def postpone(session: Session, delivery_id: str, next_at: float, *, attempts: int, error: str) -> None:
    """Record a failed attempt and when the next one is due."""
    _change(session, delivery_id, next_at=next_at, attempts=attempts, last_error=error)


def forget_delivered(session: Session, before: float) -> None:
    """Delete deliveries of before that time which are over."""
    session.execute(
        delete(WebhookDelivery).where(WebhookDelivery.state != PENDING, WebhookDelivery.created_at < before)
    )


def _change(session: Session, delivery_id: str, **values: object) -> None:
    session.execute(update(WebhookDelivery).where(WebhookDelivery.id == delivery_id).values(**values))
