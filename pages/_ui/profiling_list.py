"""Profiles as a list: newest first, those under way with how far they are."""

from __future__ import annotations

import time
from typing import Final

import streamlit as st

from control_plane.services import profiling
from control_plane.ui import current
from control_plane.ui.viewmodels import profiling as views
from control_plane.ui.viewmodels import quantities
from pages._ui import links, markup, paging, shell
from pages._ui.guard import refreshing

PAGE_SIZE: Final = 10


def draw() -> None:
    """Draw the search and the list; a sentence while there is none."""
    if not profiling.search(current.context(), page_size=1).total:
        shell.empty("No profile yet", "Profiles are listed here, and can be compared with each other.")
        return
    with st.container(border=True, key="profiling-list"):
        st.html(markup.card_title("Profiles"))
        st.text_input(
            "Search",
            key="q",
            bind="query-params",
            placeholder="name, version, endpoint, creator",
            icon=":material/search:",
            on_change=paging.first_page,
            width=320,
            label_visibility="collapsed",
        )
        _rows()


@refreshing(2.0)
def _rows() -> None:
    found = profiling.search(
        current.context(),
        q=str(st.session_state.get("q") or ""),
        page=paging.current_page(),
        page_size=PAGE_SIZE,
    )
    if not found.items:
        shell.empty("No profile matches", "Change the search.")
        return
    now = time.time()
    for view in found.items:
        place, action = links.row()
        place.html(
            markup.card_title(view.title, views.state(view), note=views.lead(view, now))
            + (markup.text(views.short(view)) if views.short(view) else "")
        )
        with action:
            links.page("profiling", "Open", key=f"open-{view.id}", run=view.id)
    paging.draw(found, quantities.count(found.total, "profile"))
