"""Everything the live page draws, in one JSON-able dict, assembled from the store."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, Final

from control_plane.telemetry import host, series
from control_plane.telemetry.evaluate import Stored, Window, evaluate, window
from control_plane.telemetry.local_store import LocalStore
from control_plane.telemetry.rollup import SLOT_MS
from control_plane.telemetry.series import Line, Series

MAX_POINTS: Final = 300
FINEST_STEP_S: Final = 2
FINE_RANGE_S: Final = 1200
"""Longer windows are drawn from 30 s sums: less to read, and still enough points for a chart."""
PANELS: Final = (
    "request_rate", "error_rate", "client_error_rate", "latency_p50", "latency_p90", "latency_p99",
    "queue_p99", "predict_p99", "batch_rows", "cache_hit_ratio", "rejected_rate", "queue_depth",
    "agent_cpu", "agent_memory", "agent_in_flight",
    "gpu_utilization", "gpu_memory", "gpu_temperature", "host_cpu", "host_memory",
)  # fmt: skip
NOTHING_YET: Final = "nothing measured in this time"
_GPU_PREFIX: Final = "gpu_"


def live_bundle(
    store: LocalStore, range_s: float, endpoint: str | None = None, *, now_s: float | None = None
) -> dict[str, Any]:
    """Return all panels over the last *range_s* seconds, of one endpoint or of all.

    `{"now": s, "range_s": s, "step_s": s, "panels": [{"id", "title", "unit", "empty": sentence or None,
    "lines": [{"name", "labels", "x": [ms since 1970], "y": [value or None]}]}]}`; at most MAX_POINTS points
    a line. Panels of host and GPU do not depend on the endpoint. now_s: the window's end; default: now.
    """
    now_s = time.time() if now_s is None else now_s
    over = window(now_s - range_s, now_s, step_for(range_s))
    reader = _Reader(store, over, endpoint)
    panels = [_panel(series.get(name), reader) for name in PANELS]
    return {"now": now_s, "range_s": range_s, "step_s": over.step_s, "panels": panels}


def step_for(range_s: float) -> float:
    """Return the step for a window: at most MAX_POINTS of them, never finer than what is stored."""
    finest = FINEST_STEP_S if range_s <= FINE_RANGE_S else SLOT_MS // 1000
    return float(finest * max(1, math.ceil(range_s / MAX_POINTS / finest)))


class _Reader:
    """Reads each stored name once for all the panels that are made of it."""

    def __init__(self, store: LocalStore, over: Window, endpoint: str | None) -> None:
        self._store = store
        self._endpoint = endpoint
        self._kept: dict[str, list[Stored]] = {}
        self.over = over

    def read(self, wanted: Series) -> list[Stored]:
        if wanted.source not in self._kept:
            endpoint = self._endpoint if "endpoint" in wanted.group_by else None
            self._kept[wanted.source] = self._store.read(wanted.source, self.over, endpoint=endpoint)
        return self._kept[wanted.source]

    def has_gpu(self) -> bool | None:
        """Say whether the last count found a GPU; None when none was counted in this window."""
        counted = self.read(_GPU_COUNT)
        return bool(counted[0].value[-1]) if counted else None


_GPU_COUNT: Final = Series("gpu_count", "GPUs", "", series.SeriesKind.GAUGE, series.GPU_COUNT, ())


def _panel(wanted: Series, reader: _Reader) -> dict[str, Any]:
    lines = evaluate(wanted, reader.read(wanted), reader.over)
    x_ms = [round(end_s * 1000) for end_s in reader.over.ends_s()]
    drawn = [_line(line, x_ms) for line in lines if any(value is not None for value in line.values)]
    empty = None if drawn else _why_empty(wanted, reader)
    return {"id": wanted.name, "title": wanted.title, "unit": wanted.unit, "empty": empty, "lines": drawn}


def _why_empty(wanted: Series, reader: _Reader) -> str:
    if wanted.name.startswith(_GPU_PREFIX) and reader.has_gpu() is False:
        return host.NO_GPU
    return wanted.empty or NOTHING_YET


def _line(line: Line, x_ms: list[int]) -> dict[str, Any]:
    return {"name": line_name(line.labels), "labels": dict(line.labels), "x": x_ms, "y": line.values}


def line_name(labels: Mapping[str, str]) -> str:
    """Return what a legend calls a line: `digits · digits@2 · a1b2c3` or `digits · digits@2 · queue full`."""
    if "endpoint" not in labels:
        return " · ".join(labels.values()) or "this machine"
    ends = (labels.get(name, "") for name in ("version", "agent"))
    named = [labels["endpoint"] or "no endpoint", *ends, labels.get("reason", "").replace("_", " ")]
    return " · ".join(part for part in named if part)
