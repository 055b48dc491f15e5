"""Server-side pages: the number lives in the address and starts again when a filter changes."""

from __future__ import annotations

from typing import Any, Final

import streamlit as st

from control_plane.domain.views import Page
from control_plane.ui.viewmodels import versions as views
from pages._ui import shell

KEY: Final = "page"
_MOST: Final = 10**6
ARROWS_PX: Final = 140
PAGE_PX: Final = 38
MOST_SHOWN: Final = 7
"""Room for the page numbers: left to itself the widget hides them beside other content."""


def current_page() -> int:
    """The page that the address names, at least 1."""
    return views.clamp_page(shell.param(KEY), _MOST, 1)


def first_page() -> None:
    """Callback of filters: what they show starts at its first page."""
    st.query_params.pop(KEY, None)


def draw(found: Page[Any], words: str) -> None:
    """Page numbers, when there is more than one page, and how much there is."""
    number = views.pages(found.total, found.page_size)
    with st.container(horizontal=True, vertical_alignment="center", key=f"pages-{KEY}"):
        if number > 1:
            st.pagination(
                number,
                default=found.page,
                width=ARROWS_PX + PAGE_PX * min(number, MOST_SHOWN),
                key=f"pagination-{found.page}-{number}",
                on_change=_turn,
                args=(found.page, number),
            )
        st.caption(f"{words} · {found.page_size} per page" if number > 1 else words)


def _turn(page: int, number: int) -> None:
    st.query_params[KEY] = str(st.session_state[f"pagination-{page}-{number}"])
