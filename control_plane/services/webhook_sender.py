"""Sending what webhooks are to be told: at least once, in order where it goes well, for a day at most.

Receivers are told beside each other, each within limits of its own, so that a slow one delays nobody. A
message is marked as delivered after the receiver has said so. Dying in between sends it again; receivers tell
a repeated one by its `webhook-id`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Coroutine, Sequence
from typing import Any, Final

import httpx

from control_plane.domain import webhook as messages
from control_plane.registry import session as sessions
from control_plane.registry import webhooks
from control_plane.registry.webhooks import Due
from control_plane.services.context import Context

logger = logging.getLogger(__name__)

EVERY_S: Final = 1.0
"""How often it is looked for messages that are due, in seconds."""
TIMEOUT_S: Final = 5.0
"""How long a receiver may take for one message in all, and begin new ones in one round, in seconds."""
MOST_A_ROUND: Final = 20
"""Messages that one receiver gets in a round at most."""
KEPT_S: Final = 7 * 24 * 3600.0
"""How long messages that are over are kept to be looked at, in seconds."""
_MAX_ERROR_CHARS: Final = 300


def deliver_due(ctx: Context, now: float) -> int:
    """Send every message whose time has come; returns how many arrived.

    A receiver that fails is left alone for this round, and the messages behind wait with the first one. Safe
    beside another sender: a message may then arrive twice. Takes twice TIMEOUT_S at most, and the registry's
    time.
    """
    with sessions.read(ctx.engine) as session:
        waiting = webhooks.due(session, now, most_each=MOST_A_ROUND)
    by_webhook: defaultdict[str, list[Due]] = defaultdict(list)
    for each in waiting:
        by_webhook[each.webhook_id].append(each)
    return _run(_deliver(ctx, list(by_webhook.values()), now)) if by_webhook else 0


def tidy(ctx: Context, now: float) -> None:
    """Forget messages that have been over for a week."""
    with sessions.write(ctx.engine) as session:
        webhooks.forget_delivered(session, now - KEPT_S)


def _run(round_of_all: Coroutine[Any, Any, int]) -> int:
    """Run it in a loop of its own; a look-up of a name that nobody waits for any more is left behind.

    `asyncio.run` would wait for its thread, and so would every receiver for one with a slow name server.
    """
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(round_of_all)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _deliver(ctx: Context, queues: Sequence[Sequence[Due]], now: float) -> int:
    async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
        sending = (_deliver_all(ctx, client, queue, now) for queue in queues)
        arrived = await asyncio.gather(*sending, return_exceptions=True)  # one that fails ends no other
    return sum(_told(each) for each in arrived)


def _told(arrived: int | BaseException) -> int:
    if isinstance(arrived, BaseException):
        raise arrived
    return arrived


async def _deliver_all(ctx: Context, client: httpx.AsyncClient, queue: Sequence[Due], now: float) -> int:
    """Send one receiver's messages in order, until one fails or its time is up; returns how many arrived."""
    until = time.monotonic() + TIMEOUT_S
    for sent, message in enumerate(queue):
        if time.monotonic() >= until:
            return sent
        error = await _send(client, message, now)
        if error is not None:
            await asyncio.to_thread(_failed, ctx, queue[sent:], error, now)
            return sent
        await asyncio.to_thread(_arrived, ctx, message)
    return len(queue)


async def _send(client: httpx.AsyncClient, message: Due, now: float) -> str | None:
    """Why *message* did not arrive; None when it did."""
    content = messages.body(message.event)
    headers = messages.headers(message.secret, message.id, now, content)
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),  # httpx counts from byte to byte
            client.stream(
                "POST", message.url, content=content, headers={"content-type": "application/json", **headers}
            ) as answer,
        ):
            return None if answer.is_success else f"answered {answer.status_code}"
    except TimeoutError:
        return f"did not answer within {TIMEOUT_S:g} s"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{type(error).__name__}: {error}"[:_MAX_ERROR_CHARS]


def _arrived(ctx: Context, message: Due) -> None:
    with sessions.write(ctx.engine) as session:
        attempts = message.attempts + 1
        webhooks.settle(session, message.id, webhooks.DELIVERED, attempts=attempts, error=None)


def _failed(ctx: Context, queue: Sequence[Due], error: str, now: float) -> None:
    """Count a failed attempt of the first message of *queue*, and let the others wait as long."""
    first, *others = queue
    attempts = first.attempts + 1
    next_at = messages.next_attempt(first.created_at, attempts, now)
    with sessions.write(ctx.engine) as session:
        if next_at is None:
            logger.warning("webhook %s: given up on message %s: %s", first.webhook_id, first.id, error)
            webhooks.settle(session, first.id, webhooks.GIVEN_UP, attempts=attempts, error=error)
            return
        webhooks.postpone(session, first.id, next_at, attempts=attempts, error=error)
        for each in others:
            webhooks.postpone(session, each.id, next_at, attempts=each.attempts, error=error)
