"""The versions that a form offers, newest first."""

from __future__ import annotations

from typing import Final

import streamlit as st

from control_plane.services import versions
from control_plane.services.context import Context
from pages._ui import links, shell

OFFERED: Final = 200
"""Others are found with the search of the Versions page."""


def refs(ctx: Context, *, missing: str) -> list[str]:
    """`model@N` of the newest; where there is none, *missing* is drawn with the ways to a first one."""
    found = [view.ref for view in versions.search(ctx, page_size=OFFERED).items]
    if not found:
        shell.empty(
            missing,
            "Upload a model first, or load the example on the Overview page: two small digit classifiers.",
        )
        with st.container(horizontal=True):
            links.page("overview", "Load the example", key="first-example", icon=":material/play_arrow:")
            links.page("upload", "Upload", key="first-upload", icon=":material/upload:")
    return found
