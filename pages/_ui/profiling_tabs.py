"""The views of a report: flame, operators, functions, memory, sweep, and another report beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import streamlit as st

from control_plane.domain.profile import ProfileView
from control_plane.services import profiling
from control_plane.ui import current
from control_plane.ui.components.figure import figure
from control_plane.ui.components.flame import flame
from control_plane.ui.viewmodels import profiling as views
from control_plane.ui.viewmodels import profiling_flames as flames
from pages._ui import markup, shell
from serving_agent.contract.profile import Report

OFFERED: Final = 100
ROW_PX: Final = 28
TABLE_PX: Final = 480


def draw(view: ProfileView, report: Report) -> None:
    """Draw the tabs that the report has something for."""
    parts = _parts(view, report)
    tabs = st.tabs(list(parts), key="tab", on_change="rerun", bind="query-params")
    for part, tab in zip(parts.values(), tabs, strict=True):
        if tab.open:
            with tab:
                part()


def _parts(view: ProfileView, report: Report) -> dict[str, Callable[[], None]]:
    offered: list[tuple[str, bool, Callable[[], None]]] = [
        (views.FLAME, True, partial(_flame, report)),
        (views.OPERATORS, bool(report.operators), partial(_operators, report)),
        (views.FUNCTIONS, bool(report.functions), partial(_functions, report)),
        (views.MEMORY, bool(report.memory), partial(_memory, view, report)),
        (views.SWEEP, bool(report.sweep), partial(_sweep, view, report)),
        (views.COMPARE, True, partial(_compare, view)),
    ]
    return {name: part for name, is_there, part in offered if is_there}


def _flame(report: Report) -> None:
    if report.flames:
        chosen = _view_of([each.name for each in report.flames], "flame")
        flame(flames.drawing(next(each for each in report.flames if each.name == chosen)), key="flame-view")
    else:
        shell.empty("No stack was seen", "Take operators or samples, for longer, to see one.")
    st.html(markup.card_title("Stages of a request"))
    st.html(markup.table(views.stage_rows(report), tight=("Stage", "Mean", "p50", "p99", "Share")))
    for note in report.notes:
        st.caption(f"{note}.")


def _view_of(names: list[str], key: str) -> str:
    """Which flame view is shown."""
    if len(names) == 1:
        return names[0]
    chosen = st.segmented_control(
        "View",
        names,
        default=names[0],
        format_func=flames.title,
        key=key,
        required=True,
        label_visibility="collapsed",
    )
    return str(chosen)


def _operators(report: Report) -> None:
    if report.layers:
        st.html(markup.card_title("Layers", note="time of one request: the median"))
        _table(views.layer_rows(report), "Layers of the network by their own time")
    st.html(markup.card_title("Operators", note=f"of {report.traced_requests} watched requests together"))
    _table(views.operator_rows(report), "Operators by their own time")


def _functions(report: Report) -> None:
    st.html(markup.card_title("Top functions", note=f"cProfile, of {report.function_requests} requests"))
    _table(views.function_rows(report), "Python functions by their own time")


def _memory(view: ProfileView, report: Report) -> None:
    figure(views.memory_drawing(report, f"memory-{view.id}"), key="memory-view")


def _sweep(view: ProfileView, report: Report) -> None:
    figure(views.sweep_drawing(report, f"sweep-{view.id}"), key="sweep-view")
    st.html(markup.text(views.knee_words(report)))
    st.html(markup.table(views.sweep_rows(report), tight=("Rows", "p50", "Rows a second", "Peak memory")))


def _table(rows: Sequence[dict[str, Any]], alt: str) -> None:
    """A table to sort and search; its drawing is a canvas, so a CSV stands beside it."""
    height = min(TABLE_PX, ROW_PX * (len(rows) + 1) + 4)
    st.dataframe(rows, hide_index=True, row_height=ROW_PX, height=height, alt=alt)


# --- another report beside it ---


def _compare(view: ProfileView) -> None:
    ctx = current.context()
    others = [
        each
        for each in profiling.search(ctx, page_size=OFFERED).items
        if each.is_ready and each.id != view.id
    ]
    if not others:
        shell.empty("There is nothing to compare with", "Take another profile; both are then laid together.")
        return
    by_id = {each.id: each for each in others}
    wanted = shell.param("with")
    chosen = st.selectbox(
        "Compare with (A; this profile is B)",
        list(by_id),
        index=list(by_id).index(wanted) if wanted in by_id else None,
        format_func=lambda each: f"{by_id[each].title} · {views.short(by_id[each])}",
        placeholder="Choose a profile",
        key="profiling-with",
        on_change=_choose,
        width=520,
    )
    if chosen is None:
        return
    found = profiling.compare(ctx, chosen, view.id)
    st.html(markup.text(views.comparison_words(by_id[chosen], view, found)))
    if found.flames:
        name = _view_of([each.name for each in found.flames], "flame-compared")
        flame(flames.compared(next(each for each in found.flames if each.name == name)), key="flame-both")
    for title, rows in (
        ("Stages", found.stages),
        ("Layers, own time", found.layers),
        ("Operators, own time", found.operators),
        ("Functions, own time", found.functions),
    ):
        shown = views.difference_rows(rows)
        if shown:
            st.html(markup.card_title(title, note="of one request"))
            st.html(markup.table(shown, mono=("Name",), tight=("A", "B", "B − A", "B / A", "Change")))
    for note in found.notes:
        st.caption(f"{note}.")


def _choose() -> None:
    chosen = st.session_state["profiling-with"]
    if chosen is None:
        st.query_params.pop("with", None)
    else:
        st.query_params["with"] = str(chosen)
