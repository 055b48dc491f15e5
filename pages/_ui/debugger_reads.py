"""What was seen in a debugger run, read once for all viewers and all parts of its page."""

from __future__ import annotations

from typing import Final

import streamlit as st

from control_plane.domain.debugging import DebugRunDetail
from control_plane.services import debugger
from control_plane.services.context import Context
from control_plane.ui import current

KEPT_S: Final = 10
"""How long one read serves, in seconds."""


def detail(run_id: str) -> DebugRunDetail:
    """A run that has ended with all that was seen. Raises NotFoundError, GoneError."""
    ctx = current.context()
    return _detail(ctx, ctx.settings.database, run_id)


@st.cache_resource(ttl=KEPT_S, show_spinner="Reading the run …", max_entries=8)
def _detail(_ctx: Context, home: str, run_id: str) -> DebugRunDetail:  # noqa: ARG001  home is part of the key
    return debugger.get(_ctx, run_id)
