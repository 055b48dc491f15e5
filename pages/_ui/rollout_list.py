"""Rollouts as rows, filtered by state; the filter and the page live in the address."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

import streamlit as st

from control_plane.domain.views import RolloutView
from control_plane.services import rollouts
from control_plane.ui import current
from control_plane.ui.viewmodels import quantities
from control_plane.ui.viewmodels import rollouts as views
from pages._ui import links, paging, rollout_markup, shell
from pages._ui.guard import refreshing

PAGE_SIZE: Final = 20
_FILTER: Final = "rollout-filter"
_PARAM: Final = "state"


def draw() -> None:
    """Draw filter, list and page numbers."""
    counts = rollouts.counts(current.context())
    chosen = views.group(shell.param(_PARAM))
    with st.container(horizontal=True, vertical_alignment="center", key="rollout-bar"):
        # Bound by hand: a bound widget would write its label, counts included, into the address.
        st.segmented_control(
            "State",
            [each.slug for each in views.GROUPS],
            default=chosen.slug,
            key=_FILTER,
            required=True,
            label_visibility="collapsed",
            format_func=lambda slug: views.group_label(views.group(slug), counts),
            on_change=_filtered,
        )
        st.space("stretch")
        start_link("new")
    _listing()


def _filtered() -> None:
    paging.first_page()
    slug = str(st.session_state[_FILTER])
    if slug == views.ALL.slug:
        st.query_params.pop(_PARAM, None)
    else:
        st.query_params[_PARAM] = slug


def start_link(endpoint: str) -> None:
    """A link to the draft of a rollout to *endpoint* ("new": to be chosen there)."""
    links.page("rollouts", "Start a rollout", key="start-rollout", icon=":material/alt_route:", new=endpoint)


@refreshing(2.0)
def _listing() -> None:
    found = rollouts.list_all(
        current.context(),
        states=views.group(shell.param(_PARAM)).states,
        page=paging.current_page(),
        page_size=PAGE_SIZE,
    )
    if not found.items:
        _empty()
        return
    rows(found.items)
    paging.draw(found, quantities.count(found.total, "rollout"))


def _empty() -> None:
    if shell.param(_PARAM):
        shell.empty("No rollout in this state", "Choose All to see the others.")
        return
    shell.empty(
        "No rollout yet",
        "Press Start a rollout: a new version gets few requests first, and more only with proof.",
    )


def rows(found: Iterable[RolloutView]) -> None:
    """One bordered row a rollout, with a link to its page."""
    now = time.time()
    for view in found:
        with st.container(border=True, key=f"rollout-{view.id}"):
            words, action = links.row()
            words.html(rollout_markup.row(views.row(view, now)))
            with action:
                links.page("rollouts", "Open", key=f"open-rollout-{view.id}", id=view.id)
