"""One Plotly figure: redrawn in place in the page's colours; a click on a point tells what it stands for.

Not isolated in a shadow root, where dragging a zoom box does not work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import plotly
import streamlit as st

from control_plane.ui.components import assets

_component = st.components.v2.component(
    "signalbox_figure",
    html='<div class="sbf"></div>',
    css=assets.text("figure.css"),
    js=assets.text("plotly.js") + assets.text("figure.js"),
    isolate_styles=False,
)


def figure(drawing: Mapping[str, Any], *, key: str, on_picked: Callable[[Any], None] | None = None) -> None:
    """Mount a figure.

    drawing: from `viewmodels.debugger_figures`. on_picked: called with the `customdata` of the point that was
    clicked, or [row, column] of a heat map's cell. key: stable over reruns.
    """

    def picked() -> None:
        told = getattr(st.session_state[key], "picked", None)
        if told is not None and on_picked is not None:
            on_picked(told)

    _component(
        key=key,
        data={**drawing, "plotly": f"/assets/plotly.min.js?v={plotly.__version__}"},
        on_picked_change=picked,
    )
