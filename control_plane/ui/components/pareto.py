"""Pareto chart of a search: redrawn in place while trials come in; a click on a point tells its number.

Not isolated in a shadow root, where dragging a zoom box does not work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import plotly
import streamlit as st

from control_plane.ui.components import assets

_component = st.components.v2.component(
    "signalbox_pareto",
    html='<div class="sbo"></div>',
    css=assets.text("pareto.css"),
    js=assets.text("plotly.js") + assets.text("pareto.js"),
    isolate_styles=False,
)


def pareto(chart: Mapping[str, Any], *, view: str, on_picked: Callable[[int], None], key: str) -> None:
    """Mount the chart.

    chart: what to draw, from `viewmodels.optimization_search.chart`. view: zoom is kept while it stays the
    same. on_picked: called with the number of the trial that was clicked. key: stable over reruns.
    """

    def picked() -> None:
        number = getattr(st.session_state[key], "picked", None)
        if number is not None:
            on_picked(int(number))

    _component(
        key=key,
        data={**chart, "view": view, "plotly": f"/assets/plotly.min.js?v={plotly.__version__}"},
        on_picked_change=picked,
    )
