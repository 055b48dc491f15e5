"""Live charts: a component that fetches `/api/v1/live` and redraws Plotly in place.

It fetches by itself: no script run, no flicker, zoom kept. Not isolated in a shadow root, where dragging a
zoom box does not work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly
import streamlit as st

from control_plane.ui.components import assets

REFRESH_MS = 2000
"""Pause between two fetches, in milliseconds."""

_component = st.components.v2.component(
    "signalbox_live_charts",
    html='<div class="sbl" aria-live="off"></div>',
    css=assets.text("live_charts.css"),
    js=assets.text("plotly.js") + assets.text("live_charts.js"),
    isolate_styles=False,
)


def live_charts(
    *,
    range_s: int,
    endpoint: str | None,
    paused: bool,
    key: str,
    panels: Sequence[str] | None = None,
    marks: Sequence[Mapping[str, Any]] = (),
    limits: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> None:
    """Mount the charts.

    range_s: how far back, in seconds. endpoint: only this one, or all. panels: ids to show, or all.
    marks: moments drawn as vertical lines on every chart, [{"x": ms since 1970, "text"}].
    limits: horizontal lines by panel id, {"error_rate": [{"y": in the panel's unit, "text"}]}.
    key: stable over reruns, so that the drawn charts stay.
    """
    _component(
        key=key,
        data={
            "url": "/api/v1/live",
            "plotly": f"/assets/plotly.min.js?v={plotly.__version__}",
            "rangeS": range_s,
            "endpoint": endpoint,
            "paused": paused,
            "panels": list(panels) if panels is not None else None,
            "marks": [dict(mark) for mark in marks],
            "limits": {panel: [dict(line) for line in lines] for panel, lines in (limits or {}).items()},
            "refreshMs": REFRESH_MS,
        },
    )
