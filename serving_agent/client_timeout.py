"""How long a client or the gateway still waits, as headers and gRPC metadata tell it. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from serving_agent.contract import wire
from serving_agent.errors import InvalidRequestError

OWN: Final = wire.TIMEOUT_HEADER.encode()
GATEWAY: Final = wire.GATEWAY_TIMEOUT_HEADER.encode()


def timeout_s(headers: Mapping[bytes, bytes]) -> float | None:
    """Return how long the client or the gateway still waits, in seconds, where they say so.

    Raises InvalidRequestError where a client's own header is no positive number of milliseconds.
    """
    limits = []
    gateway = headers.get(GATEWAY, b"")
    if gateway.isdigit():
        limits.append(float(gateway) / 1000)
    if own := headers.get(OWN):
        limits.append(_milliseconds(own) / 1000)
    return min(limits, default=None)


def _milliseconds(text: bytes) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise InvalidRequestError(f"{wire.TIMEOUT_HEADER} must be a positive number of milliseconds")
    return value
