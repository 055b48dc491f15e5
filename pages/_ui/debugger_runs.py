"""Debugger runs as a list: newest first, those with a name kept longer."""

from __future__ import annotations

import time
from typing import Final

import streamlit as st

from control_plane.services import debugger
from control_plane.ui import current
from control_plane.ui.viewmodels import debugger as words
from control_plane.ui.viewmodels import debugger_tensors as tensors
from control_plane.ui.viewmodels import quantities
from pages._ui import links, markup, paging, shell
from pages._ui.guard import refreshing

PAGE_SIZE: Final = 10


def draw() -> None:
    """Draw the search and the list; nothing while there is no run at all."""
    if not debugger.search(current.context(), page_size=1).total:
        shell.empty("No run yet", "Runs are listed here; give one a name to keep it longer.")
        return
    with st.container(border=True, key="debugger-runs"):
        st.html(markup.card_title("Runs"))
        with st.container(horizontal=True, vertical_alignment="bottom"):
            st.text_input(
                "Search",
                key="q",
                bind="query-params",
                placeholder="name, version, creator",
                icon=":material/search:",
                on_change=paging.first_page,
                width=320,
                label_visibility="collapsed",
            )
            st.toggle("Named only", key="saved", bind="query-params", on_change=paging.first_page)
        _rows()


@refreshing(2.0)
def _rows() -> None:
    found = debugger.search(
        current.context(),
        q=str(st.session_state.get("q") or ""),
        saved=True if st.session_state.get("saved") else None,
        page=paging.current_page(),
        page_size=PAGE_SIZE,
    )
    if not found.items:
        shell.empty("No run matches", "Change the search.")
        return
    now = time.time()
    for view in found.items:
        place, action = links.row()
        place.html(
            markup.card_title(words.title(view), words.badge(view), note=words.lead(view, now, named=True))
            + (markup.text(tensors.stopped(view.summary)) if view.summary else "")
        )
        with action:
            links.page("debugger", "Open", key=f"open-{view.id}", run=view.id)
    paging.draw(found, quantities.count(found.total, "run"))
