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


def follow(*names: str) -> None:
    """Bring the browser's address up to date where a query parameter of *names* has changed.

    A link to the page that is open runs it with the new query, but Streamlit leaves the old address in the
    browser: a reload or a copied address would lead back.
    """
    noted, now = f"address-{'-'.join(names)}", [st.query_params.get(name) for name in names]
    if st.session_state.get(noted, now) != now:
        st.query_params.from_dict(st.query_params.to_dict())
    st.session_state[noted] = now


def row() -> tuple[DeltaGenerator, DeltaGenerator]:
    """Two places on one line: one for words, one at the right end for a link."""
    line = st.container(horizontal=True, vertical_alignment="center")
    return line.container(), line.container(width="content")


def to(link: str, label: str, *, key: str) -> None:
    """A link to an address like `/endpoints?name=digits`."""
    parts = urlsplit(link)
    name = parts.path.strip("/")
    page(_BY_PATH.get(name, name), label, key=key, icon=None, disabled=False, **dict(parse_qsl(parts.query)))
