"""Calls to the gateway, made as any client makes them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import httpx

from control_plane.domain.names import check_label
from control_plane.domain.views import Prediction
from control_plane.errors import InvalidInputError, UnavailableError

_TIMEOUT = httpx.Timeout(65.0, connect=2.0, pool=10.0)
_PROBE_TIMEOUT_S = 0.5
_START = "See `signalbox status`; `signalbox up` starts it."


def predict(gateway_url: str, endpoint: str, body: Mapping[str, Any]) -> Prediction:
    """POST *body* to the endpoint. Raises UnavailableError when the gateway does not answer in time."""
    check_label("endpoint", endpoint)
    content = _encoded(body)
    started = time.perf_counter()
    try:
        answer = _client().post(
            f"{gateway_url}/e/{endpoint}/predict",
            content=content,
            headers={"content-type": "application/json"},
        )
    except httpx.TimeoutException as error:
        raise UnavailableError(f"The gateway did not answer for {endpoint} in time") from error
    except httpx.HTTPError as error:
        raise UnavailableError(f"The gateway does not answer at {gateway_url}", next_step=_START) from error
    latency_ms = (time.perf_counter() - started) * 1000
    return Prediction(
        status=answer.status_code,
        body=_decoded(answer),
        latency_ms=latency_ms,
        version_ref=answer.headers.get("x-signalbox-version"),
        digest=answer.headers.get("x-signalbox-digest"),
    )


def answers(gateway_url: str) -> bool:
    """Whether the gateway says that it lives, within half a second."""
    try:
        return _client().get(f"{gateway_url}/v2/health/live", timeout=_PROBE_TIMEOUT_S).is_success
    except httpx.HTTPError:
        return False


@cache
def _client() -> httpx.Client:
    """One connection pool for the process; never through a proxy."""
    return httpx.Client(timeout=_TIMEOUT, trust_env=False, limits=httpx.Limits(max_connections=64))


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(dict(body), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"The input is not plain JSON with finite numbers: {error}") from error


def _decoded(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {"error": answer.text[:2000]}
    return body if isinstance(body, dict) else {"predictions": body}
