"""Example picker: a row of pictures to choose one input from."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from control_plane.ui.components import assets
from control_plane.ui.viewmodels.playground import Thumbnail

_component = st.components.v2.component(
    "signalbox_example_picker",
    html='<div class="pick" role="listbox" aria-label="Example inputs"></div>',
    css=assets.text("example_picker.css"),
    js=assets.text("example_picker.js"),
)


def example_picker(items: Sequence[Thumbnail], chosen: int, key: str) -> int:
    """Draw *items* and return the index of the one that is picked; *chosen* before any click."""
    result = _component(
        key=key,
        data={
            "chosen": chosen,
            "items": [{"index": item.index, "title": item.title, "picture": item.picture} for item in items],
        },
        on_picked_change=lambda: None,
    )
    return chosen if result.picked is None else int(result.picked)
