"""Which rows calibrate a variant: the version's examples, kept requests, or a file."""

from __future__ import annotations

from typing import Final

import streamlit as st

from control_plane.domain.optimization_views import CalibrationWish, LabView
from control_plane.ui.components.calibration_file import Kept, calibration_file
from control_plane.ui.viewmodels import optimization_form as views
from pages._ui import actions, markup

_KEPT: Final = "optimization-calibration"


def draw(lab: LabView, key: str) -> CalibrationWish | None:
    """Draw the choice; returns what was chosen. Raises InvalidInputError while it cannot be used."""
    choices = lab.calibrations
    place = st.radio(
        "Calibrate with",
        range(len(choices)),
        index=views.first_usable(choices),
        key=f"{key}-calibration",
        horizontal=True,
        format_func=lambda at: views.calibration_words(choices[at]),
        help="Inputs of the kind the model will see: ranges of numbers are read off them.",
    )
    choice = choices[place]
    if choice.source == "upload":
        sent = _file(lab.ref, key)
        return views.wish(choice, sent["digest"] if sent else None)
    if choice.problem:
        st.html(markup.text(f"They cannot be used: {choice.problem}"))
    return views.wish(choice, None)


def _file(ref: str, key: str) -> Kept | None:
    name = f"{_KEPT}-{ref}"
    kept: Kept | None = st.session_state.get(name)
    sent = calibration_file(ref=ref, actor=actions.ACTOR, kept=kept, key=f"{key}-calibration-file")
    st.session_state[name] = sent
    return sent
