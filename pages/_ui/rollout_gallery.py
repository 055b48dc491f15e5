"""What the gates found, and the requests that both versions answered differently."""

from __future__ import annotations

import time

import streamlit as st

from control_plane.services import rollouts
from control_plane.ui import current
from control_plane.ui.viewmodels import rollout_evidence as views
from pages._ui import links, markup, rollout_markup, shell
from pages._ui.guard import refreshing

COLUMNS = 3
DEBUGGER = "debugger"


@refreshing(2.0)
def gates(rollout_id: str) -> None:
    """The gates before traffic, once there is something to say of them."""
    found = rollouts.get(current.context(), rollout_id).gates
    if not found:
        return
    with st.container(border=True, key="rollout-gates"):
        st.html(
            markup.card_title("Gates before traffic")
            + markup.table(views.gate_rows(found), tight=("Outcome",))
        )


@refreshing(5.0)
def disagreements(rollout_id: str) -> None:
    """The worst disagreements, each with a link to the debugger."""
    found = views.disagreements(rollouts.disagreements(current.context(), rollout_id), time.time())
    if not found:
        return
    st.subheader("Answered differently", anchor=False)
    for start in range(0, len(found), COLUMNS):
        columns = st.columns(COLUMNS)
        for column, each in zip(columns, found[start : start + COLUMNS], strict=False):
            with column.container(border=True, height="stretch", key=f"differs-{each.id}"):
                st.html(rollout_markup.disagreement(each))
                _debug(each)


def _debug(each: views.Disagreement) -> None:
    if shell.has_page(DEBUGGER):
        links.to(each.link, "Open in debugger", key=f"debug-{each.id}")
