"""One debugger run: how far it is, what may be done with it, and what was seen."""

from __future__ import annotations

import time
from functools import partial
from typing import Final
from urllib.parse import urlencode

import streamlit as st

from control_plane.domain.debugging import DebugRunDetail, DebugRunView
from control_plane.errors import GoneError
from control_plane.services import debugger, jobs
from control_plane.ui import current
from control_plane.ui.viewmodels import debugger as words
from control_plane.ui.viewmodels import debugger_tensors as tensors
from control_plane.ui.viewmodels import quantities
from control_plane.ui.viewmodels.badges import Badge
from pages._ui import (
    actions,
    debugger_edit,
    debugger_layers,
    debugger_markup,
    debugger_new,
    debugger_reads,
    debugger_stages,
    debugger_tokens,
    links,
    markup,
)
from pages._ui.guard import refreshing

REFRESH_S: Final = 0.7
LAYERS, STAGES, TOKENS = "Layers", "Stages", "Tokens"


def draw(run_id: str) -> None:
    """Draw the page of one run. Raises NotFoundError."""
    ctx = current.context()
    with st.container(horizontal=True, key="debugger-top"):
        links.page("debugger", "All runs", key="back", icon=":material/arrow_back:")
    actions.show_notices()
    view = debugger.view(ctx, run_id)
    if view.ended:
        _ended(view)
    else:
        _going(run_id)


@refreshing(REFRESH_S)
def _going(run_id: str) -> None:
    view = debugger.view(current.context(), run_id)
    if view.ended:
        st.rerun()
    _head(view)
    done = min(1.0, max(0.0, view.progress))
    st.progress(done, text=f"{view.stage or 'waiting for the worker'} · {quantities.share(done)}")
    st.button("Cancel", key="debugger-cancel", icon=":material/stop:", on_click=_cancel, args=(view.job_id,))


def _cancel(job_id: str) -> None:
    ctx = current.context()
    actions.act(lambda: jobs.cancel(ctx, job_id, actor=actions.ACTOR), "Cancelling the run")


def _ended(view: DebugRunView) -> None:
    try:
        detail, gone = debugger_reads.detail(view.id), None
    except GoneError as error:
        detail, gone = None, error
    found = words.found_badges(detail) if detail is not None else ()
    _head(view, *found)
    _actions(view)
    if gone is not None:
        st.html(markup.problem(gone.message, gone.next_step))
    if view.reason is not None:
        st.html(markup.problem(tensors.stopped(view.reason.message), view.reason.next_step))
        links.page("jobs", "Open the job with its log", key="back-to-job", id=view.job_id)
    if detail is None:
        return
    _lineage(detail)
    if view.edits:
        debugger_edit.changed(detail)
    _sides(detail)
    _parts(detail)


def _head(view: DebugRunView, *found: Badge) -> None:
    st.html(
        debugger_markup.head(
            words.title(view), words.lead(view, time.time(), named=True), words.badge(view), *found
        )
    )


def _sides(detail: DebugRunDetail) -> None:
    for side in detail.sides:
        problem = words.problem_of(side)
        if problem is not None:
            st.html(markup.problem(*problem))
        if side.run is not None:
            debugger_stages.strip(side, several=len(detail.sides) > 1)
    if detail.served is not None:
        st.html(markup.text(f"{detail.served.sentence}."))


def _parts(detail: DebugRunDetail) -> None:
    runs = [side.run for side in detail.sides if side.run is not None]
    if not runs:
        return
    inside = any(run.points for run in runs)
    names = [LAYERS, STAGES, *([TOKENS] if detail.tokens is not None else [])]
    tabs = st.tabs(
        names,
        default=LAYERS if inside else STAGES,
        key="view",
        on_change="rerun",
        bind="query-params",
    )
    parts = {LAYERS: debugger_layers.draw, STAGES: debugger_stages.draw, TOKENS: debugger_tokens.draw}
    for name, tab in zip(names, tabs, strict=True):
        if tab.open:
            with tab:
                parts[name](detail.view.id)


# --- what may be done with it ---


def _actions(view: DebugRunView) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="debugger-actions"):
        with st.popover(
            "Rename" if view.saved else "Save", icon=":material/bookmark:", key="debugger-save-ask"
        ):
            st.text_input(
                "Name", view.name, key=f"debugger-rename-{view.id}", max_chars=100, placeholder="int8 drift"
            )
            st.html(markup.text("A run with a name is kept longer. Without one it expires."))
            st.button("Save", key="debugger-save", type="primary", on_click=_save, args=(view.id,))
        with st.container(width="content", key="debugger-share-place"):
            _share()
        st.button(
            "Run again",
            key="debugger-again",
            icon=":material/replay:",
            on_click=_note_again,
            help="The same versions on the same input.",
        )
        if view.state == "succeeded":
            _downloads(view)
        actions.confirm(
            "Delete",
            f"**{words.title(view)}** and all that was seen in it go for good. Runs that came from it stay.",
            partial(_delete, view.id),
            "debugger-delete",
            icon=":material/delete:",
        )
    if st.session_state.pop(_AGAIN, False):
        debugger_new.again(view.id)


_AGAIN: Final = "debugger-again-pressed"


def _note_again() -> None:
    st.session_state[_AGAIN] = True


def _downloads(view: DebugRunView) -> None:
    """Answered by REST: a file that Streamlit holds is forgotten when parts of the page are drawn again."""
    address, name = f"/api/v1/debug-runs/{view.id}/export", f"debugger-{view.id[:8]}"
    st.html(
        debugger_markup.download(
            (
                ("↓ JSON", f"{address}?form=json", f"{name}.json"),
                ("↓ HTML", f"{address}?form=html", f"{name}.html"),
            )
        ),
        width="content",
    )


@refreshing(None)
def _share() -> None:
    """The page's address; read when it is opened, since steps change it without the rest of the page."""
    with st.popover("Share", icon=":material/link:", key="debugger-share", on_change="rerun"):
        st.html(markup.text("Opens this run at the layer that is chosen:"))
        st.code(_address(), language=None, wrap_lines=True)


def _address() -> str:
    ctx = current.context()
    return f"{ctx.settings.web_url}/debugger?{urlencode(dict(st.query_params))}"


def _save(run_id: str) -> None:
    ctx, name = current.context(), str(st.session_state[f"debugger-rename-{run_id}"] or "").strip()
    actions.act(
        lambda: debugger.save(ctx, run_id, name, actor=actions.ACTOR),
        f"Saved as {name}" if name else "The run has no name any more",
    )


def _delete(run_id: str) -> None:
    ctx = current.context()
    actions.act(
        lambda: debugger.delete(ctx, run_id, actor=actions.ACTOR),
        "The run is deleted",
        then=dict.fromkeys(("run", *debugger_new.OF_NEW)),
    )


def _lineage(detail: DebugRunDetail) -> None:
    """Runs that it came from and that came from it."""
    related = words.related(detail)
    if not related:
        return
    with st.expander(
        f"Related: {quantities.count(len(related), 'run')} of the same input", key="debugger-lineage"
    ):
        for how, view in related:
            place, action = links.row()
            edits = words.edits_words(view.edits) or "no edit"
            place.html(
                markup.card_title(f"{how.capitalize()} {words.title(view)}", words.badge(view), note=edits)
            )
            with action:
                links.page("debugger", "Open", key=f"related-{view.id}", run=view.id)
