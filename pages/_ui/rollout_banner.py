"""What other pages say of rollouts: the one in progress at an endpoint, and where to start one."""

from __future__ import annotations

import streamlit as st

from control_plane.domain.endpoint import EndpointGoal
from control_plane.domain.views import EndpointView, VersionView
from control_plane.services import endpoints, rollouts
from control_plane.ui import current
from control_plane.ui.viewmodels import rollouts as views
from pages._ui import links, markup, rollout_list


def draw(endpoint: str) -> None:
    """The rollout in progress at *endpoint*, with a link to its page; nothing when there is none."""
    found = rollouts.list_all(
        current.context(), endpoint=endpoint, states=views.ACTIVE_STATES, page_size=1
    ).items
    for view in found:
        with st.container(border=True, key="endpoint-rollout"):
            words, action = links.row()
            title = f"Rollout in progress: {views.pair(view)}"
            note = f"{views.share_words(view)}, step {views.step_words(view)}"
            words.html(
                markup.card_title(title, views.state_badge(view.state), note=note)
                + markup.text(views.sentence(view, views.why(view)))
            )
            with action:
                links.page("rollouts", "Open", key="endpoint-rollout", id=view.id)


def start(view: EndpointView) -> None:
    """The link that starts a rollout to the endpoint, while it runs."""
    if view.goal == EndpointGoal.RUNNING:
        rollout_list.start_link(view.name)


def suited(version: VersionView) -> str:
    """The endpoint that a version would be rolled out to: one that serves its model, or "new" to choose."""
    serving = (
        view.name
        for view in endpoints.list_all(current.context())
        if view.goal == EndpointGoal.RUNNING
        and view.version_ref != version.ref
        and view.version_ref.partition("@")[0] == version.model
    )
    return next(serving, "new")
