"""What is sent to webhooks and when again, after the Standard Webhooks specification. Pure.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from control_plane.errors import InvalidInputError

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  how secrets begin, not one
SECRET_BYTES: Final = 24
MAX_URL_CHARS: Final = 2000
GIVE_UP_S: Final = 24 * 3600.0
"""How long after the event it is tried, in seconds."""
_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 6 * 3600.0
_GROWTH: Final = 3.0


def check_url(url: str) -> str:
    """Return *url* if it is an http or https address without a user's name. Raises InvalidInputError."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or len(url) > MAX_URL_CHARS or not url.isprintable() or " " in url:
        raise InvalidInputError(
            f"{url[:80]!r} is no address that a webhook can have", next_step="Use http://… or https://…"
        )
    if parts.username is not None:
        raise InvalidInputError("a webhook's address must not hold a user name or password")
    return url


def secret_of(key: bytes) -> str:
    """The secret that *key* is handed out as: `whsec_<base64>`."""
    return SECRET_PREFIX + base64.b64encode(key).decode()


def body(event: Mapping[str, Any]) -> bytes:
    """The JSON that is sent for *event*, which holds `type` and `at` (UTC seconds) beside its data."""
    data = {name: value for name, value in event.items() if name not in ("type", "at")}
    stamp = datetime.fromtimestamp(event["at"], UTC).isoformat(timespec="milliseconds")
    payload = {"type": event["type"], "timestamp": stamp.replace("+00:00", "Z"), "data": data}
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def headers(secret: str, message_id: str, now: float, content: bytes) -> dict[str, str]:
    """The three headers of one attempt; the signature covers id, time (whole UTC seconds) and content."""
    stamp = str(int(now))
    return {
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": signature(secret, message_id, stamp, content),
    }


def signature(secret: str, message_id: str, stamp: str, content: bytes) -> str:
    """`v1,<base64 of HMAC-SHA256>`. Raises InvalidInputError for what is no secret."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error as error:
        raise InvalidInputError("the webhook's secret is not usable") from error
    signed = b".".join((message_id.encode(), stamp.encode(), content))
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def next_attempt(created_at: float, attempts: int, now: float) -> float | None:
    """When to try again after *attempts* failures, the last one at *now*; None: a day has been enough."""
    pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * _GROWTH ** min(attempts - 1, 20))
    return now + pause if now + pause <= created_at + GIVE_UP_S else None
