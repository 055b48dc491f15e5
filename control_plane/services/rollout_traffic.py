"""An endpoint's traffic as it was measured lately: what a prediction of a rollout rests on."""

from __future__ import annotations

import logging
import sqlite3
import time
from dataclasses import dataclass
from typing import Final

from control_plane.services.context import Context
from control_plane.telemetry.evaluate import Stored, Window, evaluate
from control_plane.telemetry.local_store import LocalStore
from control_plane.telemetry.series import (
    GATEWAY_LATENCY,
    GATEWAY_REQUESTS,
    SERVER_ERRORS,
    Series,
    SeriesKind,
)

logger = logging.getLogger(__name__)

MEASURED_S: Final = 900.0
"""How far back is measured, in seconds."""
_FINE_S: Final = 25.0
"""Finer than the 30 s sums, so that samples as taken are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What comes in and how it is answered. None: not measured, or not known."""

    rate: float | None = None
    """Requests per second."""
    error_rate: float | None = None
    """Share answered with a server error, in [0, 1]."""
    p50_s: float | None = None
    p95_s: float | None = None
    """Quantiles of latency, in seconds."""

    def over(self, other: Traffic) -> Traffic:
        """This, filled up from *other* where it says nothing."""
        return Traffic(
            rate=other.rate if self.rate is None else self.rate,
            error_rate=other.error_rate if self.error_rate is None else self.error_rate,
            p50_s=other.p50_s if self.p50_s is None else self.p50_s,
            p95_s=other.p95_s if self.p95_s is None else self.p95_s,
        )


def measured(ctx: Context, endpoint: str) -> Traffic:
    """The endpoint's traffic of the last quarter of an hour; all None when it had none or it cannot be read.

    The rate is that of the time since measurements began, where that is shorter.
    """
    try:
        return _read(LocalStore(ctx.settings.metrics_path), endpoint, time.time())
    except (sqlite3.Error, OSError) as error:
        logger.warning("the traffic of %s cannot be read: %s", endpoint, error)
        return Traffic()


def _read(store: LocalStore, endpoint: str, now: float) -> Traffic:
    over = _window(now)
    requests = store.read(GATEWAY_REQUESTS, over, endpoint=endpoint)
    total = sum(float(one.value.sum()) for one in requests)
    if not total:
        return Traffic()
    failed = sum(
        float(one.value.sum()) for one in requests if one.labels.get("code", "").startswith(SERVER_ERRORS)
    )
    latency = store.read(GATEWAY_LATENCY, over, endpoint=endpoint)
    return Traffic(
        rate=total / max(1.0, _covered_s(requests, now)),
        error_rate=failed / total,
        p50_s=_quantile(latency, 0.5, now),
        p95_s=_quantile(latency, 0.95, now),
    )


def _window(now: float) -> Window:
    return Window(now - MEASURED_S, _FINE_S, round(MEASURED_S / _FINE_S))


def _covered_s(stored: list[Stored], now: float) -> float:
    """Seconds since the first sample's span began."""
    began = min(float(one.t_s[0] - one.span_s[0]) for one in stored)
    return min(MEASURED_S, now - began)


def _quantile(stored: list[Stored], quantile: float, now: float) -> float | None:
    series = Series(
        "latency", "Latency", "s", SeriesKind.QUANTILE, GATEWAY_LATENCY, ("endpoint",), quantile=quantile
    )
    lines = evaluate(series, stored, Window(now - MEASURED_S, MEASURED_S, 1))
    return lines[0].values[-1] if lines else None
