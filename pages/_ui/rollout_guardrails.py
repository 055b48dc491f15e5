"""The guardrails of a draft as a table to edit."""

from __future__ import annotations

from typing import Any

import streamlit as st

from control_plane.analysis import catalog
from control_plane.errors import SignalboxError
from control_plane.ui.viewmodels import rollout_draft as views
from pages._ui import markup


def draw(strategy: str) -> dict[str, dict[str, Any]]:
    """Draw the table; returns what was changed in it, by guardrail."""
    st.html(
        markup.card_title("Guardrails", note="how much worse than stable may it be? pp: percentage points")
    )
    titles = {metric.name: metric.title for metric in catalog.metrics()}
    rows = views.guardrail_rows(catalog.defaults(), titles)
    number = st.column_config.NumberColumn(min_value=0.0, max_value=100.0, format="%.4g")
    edited = st.data_editor(
        rows,
        key=f"draft-guardrails-{strategy}",
        hide_index=True,
        column_order=views.GUARDRAIL_COLUMNS,
        disabled=views.GUARDRAIL_FIXED,
        column_config={
            **dict.fromkeys(views.GUARDRAIL_NUMBERS, number),
            "In": st.column_config.TextColumn(width=80),
        },
        row_height=32,
        alt="Guardrails with tolerance and largest regression",
    )
    try:
        return views.guardrail_patches(rows, edited)
    except SignalboxError as error:
        st.html(markup.problem(error.message, error.next_step, warn=True))
        return {}
