"""The "Use it" tab: client code that works as pasted."""

from __future__ import annotations

import streamlit as st

from control_plane.services import endpoints, versions
from control_plane.services.context import Context
from control_plane.ui.viewmodels import playground, snippets
from pages._ui import markup


def draw(ctx: Context, name: str) -> None:
    """Draw the snippets of endpoint *name*, filled with an example input where there is one."""
    view = endpoints.get(ctx, name)
    ref = view.serving_ref or view.version_ref
    signature = endpoints.signature(ctx, name)
    row = playground.example_row(signature, versions.examples(ctx, ref))
    st.html(markup.text("Each one works as pasted. The address stays the same whatever version serves it."))
    for snippet in snippets.snippets(name, ctx.settings.gateway_url, ctx.settings.web_url, signature, row):
        st.html(markup.card_title(snippet.title, note=snippet.needs))
        st.code(snippet.code, language=snippet.language, wrap_lines=True)
