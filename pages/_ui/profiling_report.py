"""One profile: how far it is, what it says in plain words, what may be done with it, and its views."""

from __future__ import annotations

import time
from functools import partial
from typing import Final
from urllib.parse import urlencode

import streamlit as st

from control_plane.domain.profile import ProfileDetail, ProfileView, Summary
from control_plane.services import jobs, profiling
from control_plane.ui import current
from control_plane.ui.components import speedscope_client
from control_plane.ui.viewmodels import profiling as views
from control_plane.ui.viewmodels.overview import KeyFigure
from control_plane.ui.viewmodels.playground import Bar
from pages._ui import actions, debugger_markup, links, markup, profiling_tabs
from pages._ui.guard import guarded, refreshing
from serving_agent.contract.profile import SPEEDSCOPE, TRACE, Report

REFRESH_S: Final = 1.0
LOG_LINES: Final = 100
_API: Final = "/api/v1/profiles"


def draw(report_id: str) -> None:
    """Draw the page of one profile. Raises NotFoundError."""
    ctx = current.context()
    with st.container(horizontal=True, key="profiling-top"):
        links.page("profiling", "All profiles", key="back", icon=":material/arrow_back:")
    actions.show_notices()
    view = profiling.get(ctx, report_id)
    if view.is_over:
        _ended(view)
    else:
        _going(report_id)


@refreshing(REFRESH_S)
def _going(report_id: str) -> None:
    view = profiling.get(current.context(), report_id)
    if view.is_over:
        st.rerun()
    _head(view)
    waits = (
        "waiting: live agents are profiled one at a time"
        if view.endpoint
        else "waiting for the lab: one job measures at a time"
    )
    st.progress(min(1.0, max(0.0, view.progress)), text=view.stage or waits)
    st.button("Cancel", key="profiling-cancel", icon=":material/stop:", on_click=_cancel, args=(view.job_id,))


def _ended(view: ProfileView) -> None:
    _head(view)
    _actions(view)
    if view.reason is not None:
        st.html(markup.problem(view.reason.message, view.reason.next_step))
    with guarded():  # one whose files are gone can still be deleted
        _found(profiling.detail(current.context(), view.id))


def _found(detail: ProfileDetail) -> None:
    view = detail.view
    if detail.report is None or detail.summary is None:
        with st.expander("Log", key="profiling-log", expanded=view.reason is not None):
            st.html(markup.log(jobs.log(current.context(), view.job_id, lines=LOG_LINES)))
        return
    _figures(detail.report)
    _in_words(view, detail.summary, detail.report)
    profiling_tabs.draw(view, detail.report)


def _head(view: ProfileView) -> None:
    st.html(debugger_markup.head(view.title, views.lead(view, time.time()), views.state(view)))


def _figures(report: Report) -> None:
    with st.container(key="profiling-figures"):
        st.html(
            markup.figures(
                KeyFigure(label, value, note, (), "idle") for label, value, note in views.key_figures(report)
            )
        )


def _in_words(view: ProfileView, summary: Summary, report: Report) -> None:
    with st.container(border=True, key="profiling-words"):
        st.html(markup.card_title(summary.headline))
        st.html(
            markup.bars(
                Bar(label, share, text, best=at == 0)
                for at, (label, share, text) in enumerate(views.cost_bars(summary.costs))
            )
        )
        for at, hint in enumerate(summary.hints):
            place, action = links.row()
            place.html(markup.text(f"{hint.sentence}."))
            link = views.hint_link(view.ref, hint)
            if link is not None:
                with action:
                    links.to(link, views.hint_label(hint), key=f"hint-{at}")
        told = " ".join(filter(None, (views.overhead_words(report), views.added_words(report))))
        st.caption(told)


# --- what may be done with it ---


def _actions(view: ProfileView) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="profiling-actions"):
        with st.popover("Rename" if view.name else "Name", icon=":material/edit:", key="profiling-name-ask"):
            st.text_input("Name", view.name, key=f"profiling-name-{view.id}", max_chars=100)
            st.button("Save", key="profiling-rename", type="primary", on_click=_rename, args=(view.id,))
        again = ("endpoint", view.endpoint) if view.endpoint else ("version", view.ref)
        links.to("/profiling?" + urlencode([again]), "Profile again", key="again")
        if view.is_ready:
            _files(view)
        actions.confirm(
            "Delete",
            f"The profile **{view.title}** and its files go for good.",
            partial(_delete, view.id),
            "profiling-delete",
            icon=":material/delete:",
        )


def _files(view: ProfileView) -> None:
    """Answered by REST: a file that Streamlit holds is forgotten when parts of the page are drawn again."""
    base, name = f"{_API}/{view.id}", f"profile-{view.id[:8]}"
    if SPEEDSCOPE in view.files:
        address = speedscope_client.address(f"{base}/{SPEEDSCOPE}", view.title)
        st.link_button("Open in Speedscope", address, icon=":material/open_in_new:")
    offered = [("↓ HTML", f"{base}/report.html", f"{name}.html")]
    if TRACE in view.files:
        offered.append(("↓ Perfetto trace (.json.gz)", f"{base}/{TRACE}", f"{name}.{TRACE}"))
    if SPEEDSCOPE in view.files:
        offered.append(("↓ Speedscope (.json)", f"{base}/{SPEEDSCOPE}", f"{name}.{SPEEDSCOPE}"))
    if "operators" in view.asked.take and not view.endpoint:
        offered.append(("↓ Operators (.csv)", f"{base}/operators.csv", f"{name}-operators.csv"))
    if "functions" in view.asked.take and not view.endpoint:
        offered.append(("↓ Functions (.csv)", f"{base}/functions.csv", f"{name}-functions.csv"))
    with st.popover("Download", icon=":material/download:", key="profiling-files"):
        st.html(debugger_markup.download(offered), width="content")


def _cancel(job_id: str) -> None:
    ctx = current.context()
    actions.act(lambda: jobs.cancel(ctx, job_id, actor=actions.ACTOR), "Cancelling the profile")


def _rename(report_id: str) -> None:
    ctx, name = current.context(), str(st.session_state[f"profiling-name-{report_id}"] or "")
    actions.act(lambda: profiling.rename(ctx, report_id, name, actor=actions.ACTOR), "Renamed")


def _delete(report_id: str) -> None:
    ctx = current.context()
    actions.act(
        lambda: profiling.delete(ctx, report_id, actor=actions.ACTOR),
        "The profile is deleted",
        then=dict.fromkeys(("run", "tab", "with", "flame")),
    )
