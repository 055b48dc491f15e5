"""Pages of an agent that are for the control plane alone, which asks it directly; the gateway gets none.

An agent's addresses are its owner's: a socket file or a loopback port. What the gateway forwards comes from
anybody, and always carries headers that it has set itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from serving_agent.contract import wire
from serving_agent.contract.capture import DEFAULT_LIMIT
from serving_agent.errors import InvalidRequestError
from serving_agent.http_message import Response
from serving_agent.request_samples import RequestSamples
from serving_agent.rollout_recorder import RolloutRecorder

GATEWAY_HEADERS: Final = (b"x-envoy-", b"x-forwarded-", wire.REQUEST_ID_HEADER.encode())
"""How headers begin that the gateway sets; clients cannot take them away."""
MAX_DIGITS: Final = 18


def came_through_gateway(headers: Mapping[bytes, bytes]) -> bool:
    """Tell whether a request with these *headers*, by lower-case name, was forwarded."""
    return any(name.startswith(GATEWAY_HEADERS) for name in headers)


def captures(recorder: RolloutRecorder, target: bytes) -> Response:
    """Answer `GET /internal/captures?after=&limit=&rollout=&inputs=all`. Raises InvalidRequestError."""
    query = dict(parse_qsl(target.partition(b"?")[2].decode("latin-1")))
    page = recorder.page(
        after=_number(query, "after", 0),
        limit=_number(query, "limit", DEFAULT_LIMIT),
        rollout=query.get("rollout", ""),
        with_inputs=query.get("inputs") == "all",
    )
    return Response((msgspec.json.encode(page),))


def samples(samples: RequestSamples, target: bytes) -> Response:
    """Answer `GET /internal/samples?after=&limit=&inputs=all`. Raises InvalidRequestError."""
    query = dict(parse_qsl(target.partition(b"?")[2].decode("latin-1")))
    page = samples.page(
        after=_number(query, "after", 0),
        limit=_number(query, "limit", DEFAULT_LIMIT),
        with_inputs=query.get("inputs") == "all",
    )
    return Response((msgspec.json.encode(page),))


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise InvalidRequestError(f"{name!r} must be a whole number, at least 0")
    return int(text)
