"""Stepping through the network: all layers as a table, jumps and breakpoints, and the chosen layer below."""

from __future__ import annotations

import streamlit as st

from control_plane.domain import breakpoints
from control_plane.domain.breakpoints import Condition
from control_plane.domain.debugging import DebugRunDetail, SideView
from control_plane.errors import SignalboxError
from control_plane.ui.components.figure import figure
from control_plane.ui.components.points_table import points_table
from control_plane.ui.viewmodels import debugger as words
from control_plane.ui.viewmodels import debugger_figures as figures
from control_plane.ui.viewmodels import debugger_points as points
from control_plane.ui.viewmodels import debugger_tensors as tensors
from pages._ui import actions, debugger_inspector, debugger_reads, markup, shell
from pages._ui.guard import refreshing
from serving_agent.contract.inspection import InspectedRun

LAYER, SIDE, BREAK = "layer", "side", "break"
_NEXT, _BACK = "N", "P"


@refreshing(None)
def draw(run_id: str) -> None:
    """Draw the walk through the chosen side."""
    detail = debugger_reads.detail(run_id)
    actions.show_notices()
    shown = _side(detail)
    run = shown.run
    if run is None:
        shell.empty("Nothing was seen of this version", "The message above says why.")
        return
    if not run.points:
        shell.empty("There are no layers to walk", words.nothing_inside(run))
        return
    place = points.place_of(run, shell.param(LAYER))
    _verdict(detail, shown, place)
    _steps(detail, shown, run, place)
    points_table(
        f"{run_id}-{shown.side}",
        lambda: points.table(detail, shown, run),
        selected=run.points[place].id,
        on_picked=_go,
        key="debugger-points",
    )
    if run.note:
        st.html(markup.text(tensors.stopped(run.note)))
    debugger_inspector.of_point(run_id, shown.side, place)


def _side(detail: DebugRunDetail) -> SideView:
    """The side that is walked, with the choice of it where there are two."""
    now = points.side_of(detail, shell.param(SIDE))
    if detail.b is None:
        return now
    refs = {side.side: f"{side.side.upper()} · {side.ref}" for side in detail.sides}
    st.segmented_control(
        "Version",
        list(refs),
        default=now.side,
        key="debugger-side",
        format_func=lambda side: refs[side],
        required=True,
        label_visibility="collapsed",
        on_change=_choose_side,
    )
    return now


def _choose_side() -> None:
    st.query_params[SIDE] = str(st.session_state["debugger-side"])


def _verdict(detail: DebugRunDetail, shown: SideView, place: int) -> None:
    """Where the two come apart, in words and as a line."""
    comparison = detail.comparison
    if comparison is None:
        return
    with st.container(border=True, key="debugger-comparison"):
        st.html(markup.card_title("A against B") + markup.text(tensors.stopped(comparison.sentence)))
        figure(
            figures.sqnr_line(comparison, shown.side, f"{detail.view.id}-sqnr", place),
            key="debugger-sqnr",
            on_picked=_go,
        )
        alone = points.alone_words(comparison)
        if alone:
            with st.expander(alone[0], key="debugger-alone"):
                st.html(markup.text(alone[1]))


# --- steps ---


def _go(layer: str) -> None:
    st.query_params[LAYER] = layer


def _steps(detail: DebugRunDetail, shown: SideView, run: InspectedRun, place: int) -> None:
    last = len(run.points) - 1
    ids = [point.id for point in run.points]
    wrong = breakpoints.find(run.points, Condition(kind="nonfinite"))
    apart = points.diverged_at(detail.comparison, shown.side)
    with st.container(horizontal=True, vertical_alignment="bottom", key="debugger-steps"):
        _step("First", "first", ids[0], icon=":material/first_page:", disabled=place == 0)
        back, after = ids[max(0, place - 1)], ids[min(last, place + 1)]
        left, right = ":material/chevron_left:", ":material/chevron_right:"
        _step("Back", "back", back, icon=left, disabled=place == 0, shortcut=_BACK)
        _step("Next", "next", after, icon=right, disabled=place == last, shortcut=_NEXT)
        _step("Last", "last", ids[last], icon=":material/last_page:", disabled=place == last)
        _step(
            "First NaN or Inf",
            "nan",
            ids[wrong or 0],
            icon=":material/error:",
            disabled=wrong is None,
            why="Every element of every layer is finite." if wrong is None else "",
        )
        if detail.comparison is not None:
            _step(
                "First divergence",
                "divergence",
                ids[apart or 0],
                icon=":material/call_split:",
                disabled=apart is None,
                why="No layer differs." if apart is None else "",
            )
    with st.container(horizontal=True, vertical_alignment="bottom", key="debugger-jumps"):
        _jump(run, place)
        _breakpoint(run, place)


def _step(
    label: str,
    name: str,
    layer: str,
    *,
    icon: str,
    disabled: bool,
    shortcut: str | None = None,
    why: str = "",
) -> None:
    st.button(
        label,
        key=f"debugger-{name}",
        icon=icon,
        disabled=disabled,
        shortcut=shortcut,
        help=why or None,
        on_click=_go,
        args=(layer,),
    )


def _jump(run: InspectedRun, place: int) -> None:
    named = points.labels(run)
    ids = list(named)
    key = f"debugger-jump-{place}"
    st.selectbox(
        "Jump to layer",
        ids,
        index=place,
        key=key,
        format_func=lambda layer: named[layer],
        on_change=_jumped,
        args=(key,),
        width=270,
    )


def _jumped(key: str) -> None:
    _go(str(st.session_state[key]))


def _breakpoint(run: InspectedRun, place: int) -> None:
    st.text_input(
        "Breakpoint",
        key=BREAK,
        bind="query-params",
        placeholder="nan, |x| > 100, *.relu, [1, *, 64]",
        help=f"Stops at the next layer that meets it: {breakpoints.FORMS}.",
        width=230,
    )
    st.button(
        "Continue",
        key="debugger-continue",
        icon=":material/play_arrow:",
        help="To the next layer that meets the breakpoint",
        on_click=_continue,
        args=(run, place),
    )


def _continue(run: InspectedRun, place: int) -> None:
    """Go to the next hit behind *place*, or on from the first layer where there is none."""
    text = str(st.session_state.get(BREAK) or "")
    try:
        condition = breakpoints.parse(text)
    except SignalboxError as error:
        actions.notices().append((error.message, error.next_step))
        return
    found = breakpoints.find(run.points, condition, place)
    if found is None:
        found = breakpoints.find(run.points[: place + 1], condition)
        if found is None:
            actions.notices().append((f"No layer meets {text}", None))
            return
        st.toast("No later layer meets it: went on from the first", icon=":material/replay:")
    _go(run.points[found].id)
