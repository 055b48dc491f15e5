"""What a draft is to be expected to do: time a step, and how soon a regression would be caught."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import streamlit as st

from control_plane.errors import SignalboxError
from control_plane.services import rollout_simulation
from control_plane.services.context import Context
from control_plane.ui.viewmodels import rollout_prediction as views
from pages._ui import markup

SIMULATED: Final = ("strategy", "weights", "bake_s", "min_requests", "mirror", "guardrails")
"""Arguments of a rollout's start that a simulation takes too."""
KEPT_S: Final = 300
"""How long a prediction serves everybody who drafts the same, in seconds: one takes a second or two."""


def draw(ctx: Context, endpoint: str, wish: Mapping[str, Any]) -> None:
    """Draw the prediction for *wish*, at the measured rate or at one that is typed."""
    st.html(markup.card_title("Prediction", note="from simulated rollouts with this plan"))
    rate = st.number_input(
        "Requests per second",
        0.01,
        1e5,
        None,
        key="draft-rate",
        placeholder="as measured lately",
        width=220,
        help="Of the whole endpoint.",
    )
    asked = {name: wish[name] for name in SIMULATED if name in wish}
    try:
        predicted = _predicted(ctx, ctx.settings.database, endpoint, asked, rate)
    except SignalboxError as error:
        st.html(markup.problem(f"No prediction: {error.message}", error.next_step, warn=True))
        return
    _show(predicted)


@st.cache_data(ttl=KEPT_S, show_spinner="Simulating this plan …", max_entries=64)
def _predicted(
    _ctx: Context,
    home: str,  # noqa: ARG001  part of the cache's key
    endpoint: str,
    asked: Mapping[str, Any],
    rate: float | None,
) -> dict[str, Any]:
    return rollout_simulation.simulate(_ctx, endpoint, rate=rate, **asked)


def _show(predicted: Mapping[str, Any]) -> None:
    st.html(markup.text(views.traffic_words(predicted)))
    for warning in views.warnings(predicted):
        st.html(markup.problem(warning, warn=True))
    with st.container(key="draft-predicted"):
        left, right = st.columns(2, gap="medium")
    left.html(
        markup.table(views.step_rows(predicted), tight=("Step",)) + markup.text(views.total_words(predicted))
    )
    right.html(markup.table(views.regression_rows(predicted), tight=("If it is worse by",)))
