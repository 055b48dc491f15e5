"""A flame view as an icicle: a click zooms into a box, a search marks boxes, all in the browser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from control_plane.ui.components import assets

_component = st.components.v2.component(
    "signalbox_flame",
    html='<div class="flame"><div class="bar"><label><span class="hidden">Find in the flame view</span>'
    '<input type="search" placeholder="Find a layer, operator or function"></label>'
    '<button type="button" class="out">Zoom out</button><span class="count" role="status"></span></div>'
    '<div class="boxes" role="tree" aria-label="Flame view"></div><p class="told" aria-live="polite"></p>'
    '<p class="note"></p></div>',
    css=assets.text("flame.css"),
    js=assets.text("flame.js"),
)


def flame(drawing: Mapping[str, Any], *, key: str) -> None:
    """Mount the view. drawing: from `viewmodels.profiling_flames`; key: stable over reruns."""
    _component(key=key, data=dict(drawing))
