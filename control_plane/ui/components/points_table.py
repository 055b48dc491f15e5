"""All layers of a debugger run as one table that is built once; a click on a row tells its id.

Rows are sent once and kept by the page: sending hundreds of them at every step would make stepping slow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import streamlit as st

from control_plane.ui.components import assets

_SENT: Final = "points-table-sent"
"""Views whose rows this session's page was sent."""
_component = st.components.v2.component(
    "signalbox_points_table",
    html='<div class="points"><div class="bar"><label><span class="hidden">Find a layer</span>'
    '<input type="search" placeholder="Find a layer by name or kind"></label>'
    '<span class="count" role="status"></span></div><div class="frame"></div></div>',
    css=assets.text("points_table.css"),
    js=assets.text("points_table.js"),
)


def points_table(
    view: str,
    table: Callable[[], Mapping[str, Any]],
    *,
    selected: str,
    on_picked: Callable[[str], None],
    key: str,
) -> None:
    """Mount the table.

    view: names the rows, and changes with them. table: makes them, from `viewmodels.debugger_points.table`.
    selected: id of the marked row. on_picked: called with the id of the row that was clicked. key: stable
    over reruns.
    """
    sent: set[str] = st.session_state.setdefault(_SENT, set())

    def picked() -> None:
        told = getattr(st.session_state[key], "picked", None)
        if told is not None:
            on_picked(str(told))

    data: dict[str, Any] = {"view": view, "selected": selected}
    if view not in sent:
        data |= table()
        sent.add(view)
    _component(key=key, data=data, on_picked_change=picked, on_missing_change=st.session_state[_SENT].clear)
