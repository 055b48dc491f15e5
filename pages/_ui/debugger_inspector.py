"""Elements of one tensor: what it is, its histogram, a window of it as a heat map, pictures and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from control_plane.domain.debugging import DebugRunDetail, Side, ValuesView
from control_plane.errors import SignalboxError
from control_plane.services import debugger
from control_plane.ui import current
from control_plane.ui.components.figure import figure
from control_plane.ui.viewmodels import debugger as words
from control_plane.ui.viewmodels import debugger_figures as figures
from control_plane.ui.viewmodels import debugger_points as points
from control_plane.ui.viewmodels import debugger_tensors as tensors
from control_plane.ui.viewmodels import debugger_values as values
from control_plane.ui.viewmodels.debugger_values import Window
from pages._ui import debugger_edit, debugger_markup, debugger_reads, markup, shell
from pages._ui.guard import refreshing
from serving_agent.contract.inspection import STAGES, Point, TensorSummary


@refreshing(None)
def of_point(run_id: str, side: Side, place: int) -> None:
    """The layer at *place* of *side*: its facts, histogram and elements."""
    detail = debugger_reads.detail(run_id)
    shown = points.side_of(detail, side)
    if shown.run is None:
        return
    point = shown.run.points[place]
    with st.container(border=True, key="debugger-inspector"):
        st.html(
            markup.card_title(points.name(point), *points.badges(point))
            + markup.text(f"Layer {place + 1} of {len(shown.run.points)} in {shown.ref}")
        )
        if not point.outputs:
            st.html(markup.facts(points.facts(point)))
            shell.empty("Not captured", points.sentence(point) or "This layer returned no tensor.")
            return
        at = _output(point)
        tensor = point.outputs[at]
        left, right = shell.split([1, 1.7])
        with left:
            st.html(markup.facts((*points.facts(point), *tensors.facts(tensor))))
            _histogram(detail, side, place, at, tensor)
            pair = points.pairs_of(detail.comparison, side, tensor=at).get(place)
            if pair is not None:
                st.html(
                    markup.card_title("Beside the other version")
                    + markup.facts(points.pair_facts(pair, side))
                )
        with right:
            _elements(detail, side, point.id, at, tensor)


def of_stage(run_id: str, side: Side, stage: str) -> None:
    """The elements of a stage's tensors."""
    detail = debugger_reads.detail(run_id)
    run = points.side_of(detail, side).run
    found = next((each for each in run.stages if each.name == stage), None) if run is not None else None
    if found is None or not found.tensors:
        return
    names = [tensor.name for tensor in found.tensors]
    name = names[0]
    if len(names) > 1:
        name = st.selectbox("Tensor", names, key=f"debugger-tensor-{side}-{stage}", width=280)
    _elements(detail, side, stage, name, found.tensors[names.index(name)])


def _output(point: Point) -> int:
    """Which of the outputs is looked at."""
    if len(point.outputs) == 1:
        return 0
    return st.selectbox(
        "Output",
        range(len(point.outputs)),
        key=f"debugger-output-{point.id}",
        format_func=lambda at: f"{point.outputs[at].name or at} · {tensors.shape(point.outputs[at].shape)}",
        width=280,
    )


def _histogram(detail: DebugRunDetail, side: Side, place: int, at: int, tensor: TensorSummary) -> None:
    """The histogram, over that of the other version's layer where there is one."""
    found = points.histograms(detail, side, place, at, tensor)
    if found:
        figure(figures.histogram(found, f"{detail.view.id}-{side}-{place}-{at}"), key="debugger-histogram")


def _elements(detail: DebugRunDetail, side: Side, point: str, at: int | str, tensor: TensorSummary) -> None:
    missing = tensors.not_kept(tensor)
    if missing:
        shell.empty("Its elements were not kept", missing)
        return
    key = f"{side}-{point}-{at}"
    if tensor.nan or tensor.inf:
        _to_wrong(detail, side, point, at, tensor.shape, key)
    piece = _window(tensor.shape, key)
    view = _values(detail, side, point, at, start=piece.start, stop=piece.stop)
    if view is None:
        return
    if view.datatype == "BYTES":
        st.html(debugger_markup.texts(values.text_of(values.array(view))))
        return
    _heat(detail, piece, view, key)
    _channels(detail, side, point, at, tensor, piece)
    with st.expander("Numbers", key=f"debugger-numbers-{key}"):
        st.html(
            debugger_markup.numbers(
                values.grid_rows(values.grid(view)), piece.row, piece.column, f"Elements of {tensor.name}"
            )
        )
    if side == "b" and point not in STAGES:
        st.html(markup.text("Edits of layers change version A: choose it above to edit one."))
    elif point != "postprocess":
        debugger_edit.form(detail.view.id, point, at, tensor, key)


def _values(
    detail: DebugRunDetail,
    side: Side,
    point: str,
    at: int | str,
    *,
    start: Sequence[int],
    stop: Sequence[int],
) -> ValuesView | None:
    try:
        return debugger.values(current.context(), detail.view.id, side, point, at, start=start, stop=stop)
    except SignalboxError as error:
        st.html(markup.problem(error.message, error.next_step, warn=True))
        return None


def _window(shape: Sequence[int], key: str) -> Window:
    """The piece that is looked at: a place in every leading dimension, and where long sides begin."""
    whole = values.window(shape)
    asked = [(at, size) for at, size in enumerate(values.leading(shape)) if size > 1]
    fixed = list(whole.fixed)
    row = column = 0
    if asked or not whole.whole:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            for at, size in asked:
                fixed[at] = _place(
                    f"Dimension {at}, 0 to {size - 1}", size - 1, 1, f"debugger-dim-{key}-{at}"
                )
            if whole.rows > values.SIDE:
                last = whole.rows - values.SIDE
                row = _place(f"First of {whole.rows} rows", last, values.SIDE, f"debugger-row-{key}")
            if whole.columns > values.SIDE:
                last = whole.columns - values.SIDE
                column = _place(f"First of {whole.columns} columns", last, values.SIDE, f"debugger-col-{key}")
    return values.window(shape, fixed, row, column)


def _to_wrong(
    detail: DebugRunDetail, side: Side, point: str, at: int | str, shape: tuple[int, ...], key: str
) -> None:
    """A button that brings the first NaN or infinity into the window."""
    try:
        place = debugger.first_wrong(current.context(), detail.view.id, side, point, at)
    except SignalboxError:  # the window says why
        return
    if place is not None:
        st.button(
            f"Show the first NaN or Inf, at {values.index_words(place)}",
            key=f"debugger-wrong-{key}",
            icon=":material/error:",
            on_click=_show,
            args=(key, place, shape),
        )


def _show(key: str, place: tuple[int, ...], shape: tuple[int, ...]) -> None:
    for at, each in enumerate(place[:-2]):
        st.session_state[f"debugger-dim-{key}-{at}"] = each
    for name, where, size in zip(("row", "col"), (1, 1, *place)[-2:], (1, 1, *shape)[-2:], strict=True):
        st.session_state[f"debugger-{name}-{key}"] = max(0, min(where, size - values.SIDE))
    st.session_state[debugger_edit.index_key(key)] = values.index_words(place)


def _place(label: str, last: int, step: int, key: str) -> int:
    return int(st.number_input(label, 0, last, 0, step=min(step, max(1, last)), key=key, width=170))


def _heat(detail: DebugRunDetail, piece: Window, view: ValuesView, key: str) -> None:
    grid = values.grid(view)
    attention = values.is_attention(grid) and len(piece.shape) >= 3
    tokens: Sequence[str] = ()
    if attention:
        run = points.side_of(detail, key[0]).run
        row = piece.fixed[0] if len(piece.fixed) > 1 else 0
        tokens = words.tokens_of(run, row)
        st.html(markup.card_title("Attention", note="how much each position looks at every other one"))
    figure(
        figures.heat_map(
            grid, piece, f"{detail.view.id}-{key}-{piece.start}", tokens=tokens, attention=attention
        ),
        key=f"debugger-heat-{key}" if key.split("-")[1] in STAGES else "debugger-heat",
        on_picked=lambda told: _picked(piece, key, told),
    )


def _picked(piece: Window, key: str, told: Any) -> None:
    """A cell that was clicked is what is edited."""
    row, column = (int(each) for each in told)
    st.session_state[debugger_edit.index_key(key)] = values.index_words(piece.index(row, column))


def _channels(
    detail: DebugRunDetail, side: Side, point: str, at: int | str, tensor: TensorSummary, piece: Window
) -> None:
    """Channels of a stack of pictures, of the row that is looked at."""
    count = values.channel_count(tensor.shape, tensor.datatype)
    if not count:
        return
    row = piece.fixed[0]
    view = _values(detail, side, point, at, start=(row, 0, 0, 0), stop=(row + 1, count, *tensor.shape[2:]))
    if view is None or view.truncated:
        return
    note = f"{count} of {tensor.shape[1]}, each from black at its smallest to white at its largest element"
    st.html(
        markup.card_title("Channels", note=note)
        + debugger_markup.pictures(values.channel_pictures(values.array(view)))
    )
