"""Links between pages that stay inside the session (a plain anchor would reload the whole application)."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages._ui.shell import page_script

_BY_PATH = {"": "overview"}


def page(
    name: str, label: str, /, *, key: str, icon: str | None = None, disabled: bool = False, **query: str
) -> None:
    """A link to the page *name* with *query* in its address. key: unique on the page."""
    with st.container(key=f"link-{key}", width="content"):
        st.page_link(page_script(name), label=label, icon=icon, query_params=query or None, disabled=disabled)


def row() -> tuple[DeltaGenerator, DeltaGenerator]:
    """Two places on one line: one for words, one at the right end for a link."""
    line = st.container(horizontal=True, vertical_alignment="center")
    return line.container(), line.container(width="content")


def to(link: str, label: str, *, key: str) -> None:
    """A link to an address like `/endpoints?name=digits`."""
    parts = urlsplit(link)
    name = parts.path.strip("/")
    page(_BY_PATH.get(name, name), label, key=key, icon=None, disabled=False, **dict(parse_qsl(parts.query)))
