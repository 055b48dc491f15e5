"""The field for a reason to serve what the optimisation lab rejected."""

from __future__ import annotations

import streamlit as st

from control_plane.domain.views import VersionDetail
from control_plane.services import waivers
from control_plane.ui.viewmodels import optimization as words
from pages._ui import markup


def draw(version: VersionDetail, *, key: str) -> str | None:
    """Draw why *version* was rejected and the field; returns the reason, None without one or need of one."""
    why = waivers.rejection(version.lineage)
    if why is None:
        return None
    st.html(
        markup.problem(f"{version.ref} was rejected when it was optimised", words.sentence(why), warn=True)
    )
    given = st.text_input(
        "Waive the rejection, because",
        key=field(key, version.ref),
        placeholder="a reason, which is recorded",
        help="Without one it is not served.",
    )
    return given or None


def field(key: str, ref: str) -> str:
    """Key of the field's widget."""
    return f"{key}-waiver-{ref}"
