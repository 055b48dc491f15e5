"""One rollout: verdict, steps and buttons on top; evidence, traffic, charts, gates and history below."""

from __future__ import annotations

import time
from typing import Final

import streamlit as st

from control_plane.domain.rollout import RolloutState
from control_plane.domain.views import RolloutView
from control_plane.services import rollouts
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.components.live_charts import live_charts
from control_plane.ui.viewmodels import rollout_detail as views
from control_plane.ui.viewmodels import rollout_evidence as evidence
from control_plane.ui.viewmodels import rollouts as words
from control_plane.ui.viewmodels.badges import Badge
from pages._ui import actions, links, markup, rollout_actions, rollout_gallery, rollout_markup, shell
from pages._ui.guard import refreshing

PANELS: Final = ("latency_p99", "error_rate", "request_rate")
REPORTS: Final = (
    ("Markdown", "markdown", "md", "text/markdown"),
    ("JSON", "json", "json", "application/json"),
)
"""Label, kind, file ending and media type of each form of the report."""


def draw(rollout_id: str) -> None:
    """Draw the page of one rollout."""
    ctx = current.context()
    links.page("rollouts", "All rollouts", key="back", icon=":material/arrow_back:")
    actions.show_notices()
    view = rollouts.get(ctx, rollout_id)
    _headline(view.id)
    left, right = shell.split([2.1, 1])
    with left:
        _evidence(view.id)
        rollout_gallery.gates(view.id)
    with right:
        _traffic(view.id)
        _access(ctx, view)
        _history(view.id)
    _charts(view.id)
    rollout_gallery.disagreements(view.id)
    _report(ctx, view)


@refreshing(2.0)
def _headline(rollout_id: str) -> None:
    ctx = current.context()
    view, now = rollouts.get(ctx, rollout_id), time.time()
    badges = (Badge("⇄", words.strategy_words(view.strategy), "idle"), words.state_badge(view.state))
    shown = views.notes(view, now, stale_s=ctx.settings.rollout_stale_s, zone=shell.zone())
    st.html(
        rollout_markup.stacked(
            rollout_markup.head(f"Rollout · {view.endpoint} · {words.pair(view)}", badges),
            rollout_markup.banner(views.banner(view)),
            rollout_markup.notes(shown),
            rollout_markup.strip(views.strip(view)),
        )
    )
    if view.phase == RolloutState.SUPERSEDED:
        _newer(ctx, view)
    rollout_actions.draw(view)


def _newer(ctx: Context, view: RolloutView) -> None:
    """A link to the rollout that took this one's place."""
    later = [
        each
        for each in rollouts.list_all(ctx, endpoint=view.endpoint).items
        if each.created_at > view.created_at
    ]
    if later:
        newer = min(later, key=lambda each: each.created_at)
        links.page("rollouts", f"Open the newer one: {words.pair(newer)}", key="newer-rollout", id=newer.id)


@refreshing(2.0)
def _evidence(rollout_id: str) -> None:
    view = rollouts.get(current.context(), rollout_id)
    st.subheader("Guardrails", anchor=False)
    if view.readings:
        st.html(rollout_markup.tiles(evidence.tiles(view.readings)))
        return
    shell.empty("No evidence", views.no_evidence(view))


@refreshing(2.0)
def _traffic(rollout_id: str) -> None:
    view, now = rollouts.get(current.context(), rollout_id), time.time()
    if not words.ended(view):
        with st.container(border=True, key="rollout-traffic"):
            st.html(markup.card_title("Traffic now") + rollout_markup.traffic(views.traffic(view)))
    with st.container(border=True, key="rollout-facts"):
        st.html(markup.card_title("Versions") + markup.facts(views.facts(view, now, shell.zone())))


def _access(ctx: Context, view: RolloutView) -> None:
    """How a tester reaches the candidate; gone with its agents."""
    if words.ended(view) and view.warm_until is None:
        return
    with st.container(border=True, key="rollout-access"):
        note = "by preview address or header" if view.tester_header else "by preview address"
        st.html(markup.card_title("Try the candidate", note=note))
        st.code(
            views.preview_code(view, f"{ctx.settings.gateway_url}/e/{view.endpoint}"),
            language="bash",
            wrap_lines=True,
        )


@refreshing(5.0)
def _history(rollout_id: str) -> None:
    found = rollouts.history(current.context(), rollout_id)
    with st.container(border=True, key="rollout-events"):
        st.html(
            markup.card_title("Events")
            + markup.table(evidence.event_rows(found.items, shell.zone()), tight=("Time", "By"))
        )


@refreshing(5.0)
def _charts(rollout_id: str) -> None:
    ctx = current.context()
    view = rollouts.get(ctx, rollout_id)
    range_s = evidence.chart_range_s(view, time.time())
    st.subheader("Both versions over time", anchor=False)
    with st.container(key="rollout-charts-row"):
        live_charts(
            range_s=range_s,
            endpoint=view.endpoint,
            paused=words.ended(view),
            key="rollout-charts",
            panels=PANELS,
            marks=evidence.step_marks(rollouts.history(ctx, rollout_id).items),
            limits=evidence.limit_marks(view, shell.bundle(ctx, range_s, view.endpoint)),
        )


def _report(ctx: Context, view: RolloutView) -> None:
    """Downloads of what a finished rollout leaves."""
    if not words.ended(view):
        return
    with st.container(border=True, key="rollout-report"):
        place, action = links.row()
        place.html(
            markup.card_title("Report") + markup.text("Timeline, who did what and why, and all the evidence.")
        )
        with action, st.container(horizontal=True):
            # Not made when pressed: Streamlit forgets such a file as soon as two parts of any page have drawn
            # themselves again, which can be before the browser has fetched it.
            for label, kind, ending, mime in REPORTS:
                st.download_button(
                    label,
                    data=rollouts.report(ctx, view.id, kind),
                    file_name=f"rollout-{view.endpoint}-{view.id[:8]}.{ending}",
                    mime=mime,
                    key=f"report-{kind}",
                    icon=":material/download:",
                    on_click="ignore",
                )
