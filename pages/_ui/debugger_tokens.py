"""Language models: what each version says of every token, how far apart they are, and where heads look."""

from __future__ import annotations

import streamlit as st

from control_plane.domain.debugging import DebugRunDetail, SideView
from control_plane.domain.token_scores import TokenScores
from control_plane.errors import SignalboxError
from control_plane.services import debugger
from control_plane.ui import current
from control_plane.ui.components.figure import figure
from control_plane.ui.viewmodels import debugger as words
from control_plane.ui.viewmodels import debugger_figures as figures
from control_plane.ui.viewmodels import debugger_points as points
from control_plane.ui.viewmodels import debugger_tokens as views
from control_plane.ui.viewmodels import debugger_values as values
from pages._ui import debugger_markup, debugger_reads, markup, shell
from pages._ui.guard import refreshing

POSITION, ROW = "token", "row"


@refreshing(None)
def draw(run_id: str) -> None:
    """Draw the tokens of one row, the position that is chosen, and attention."""
    detail = debugger_reads.detail(run_id)
    scores = detail.tokens
    if scores is None:
        return
    row = _row(scores)
    here = views.position(scores, row, shell.param(POSITION))
    _lines(detail, scores, row, here)
    _position(detail, scores, row, here)
    _attention(detail, row)


def _row(scores: TokenScores) -> int:
    rows = views.rows(scores)
    if len(rows) == 1:
        return rows[0]
    wanted = shell.param(ROW)
    now = int(wanted) if wanted and wanted.isdecimal() and int(wanted) in rows else rows[0]
    return int(
        st.selectbox(
            "Row",
            rows,
            index=rows.index(now),
            key="debugger-token-row",
            format_func=lambda row: f"Row {row + 1} · {views.start_of(scores, row)}",
            width=420,
        )
    )


def _lines(detail: DebugRunDetail, scores: TokenScores, row: int, here: int) -> None:
    refs = [f"{side.side.upper()} · {side.ref}" for side in detail.sides]
    view = f"{detail.view.id}-{row}"
    with st.container(border=True, key="debugger-logprobs"):
        st.html(
            markup.card_title("Log-probability by position", note="of each token, given all before it")
            + markup.text(views.summary(scores, row))
        )
        figure(
            figures.logprob_line(scores, row, f"{view}-logprob", refs, here),
            key="debugger-logprob",
            on_picked=_go,
        )
        if detail.b is not None:
            st.html(markup.card_title("KL(A‖B)", note="of what could come after each position"))
            figure(figures.kl_bars(scores, row, f"{view}-kl", here), key="debugger-kl", on_picked=_go)


def _go(position: int) -> None:
    st.query_params[POSITION] = str(position)


def _position(detail: DebugRunDetail, scores: TokenScores, row: int, here: int) -> None:
    with st.container(border=True, key="debugger-position"):
        named = views.labels(scores, row)
        key = f"debugger-token-{row}-{here}"
        st.selectbox(
            "After position",
            list(named),
            index=list(named).index(here),
            key=key,
            format_func=lambda position: named[position],
            on_change=_chosen,
            args=(key,),
            width=320,
        )
        st.html(
            markup.table(
                views.candidate_rows(scores, row, here, compared=detail.b is not None), tight=("Rank",)
            )
            or markup.text("No candidates were kept for this position.")
        )


def _chosen(key: str) -> None:
    _go(int(st.session_state[key]))


# --- attention ---


def _attention(detail: DebugRunDetail, row: int) -> None:
    found = [side for side in detail.sides if side.run is not None and views.attention_points(side.run)]
    if not found:
        st.html(
            markup.text(
                "No layer returns its attention: networks that compute it in one fused step hand out none."
            )
        )
        return
    with st.container(border=True, key="debugger-attention"):
        st.html(markup.card_title("Attention", note="rows look at columns; every row adds up to 1"))
        named = views.attention_points(found[0].run)
        left, right = st.columns([2, 1])
        layer = left.selectbox("Layer", list(named), key="debugger-attention-layer")
        heads = named[layer].heads
        head = int(
            right.number_input(f"Head, 0 to {heads - 1}", 0, heads - 1, 0, key="debugger-attention-head")
        )
        for side in found:
            _head(detail, side, layer, row, head)


def _head(detail: DebugRunDetail, side: SideView, layer: str, row: int, head: int) -> None:
    at = views.attention_points(side.run).get(layer)
    if at is None:
        st.html(markup.text(f"{side.ref} has no attention at {layer}."))
        return
    piece = values.window(at.shape, (row, head))
    try:
        view = debugger.values(
            current.context(),
            detail.view.id,
            side.side,
            at.point,
            at.tensor,
            start=piece.start,
            stop=piece.stop,
        )
    except SignalboxError as error:
        st.html(markup.problem(error.message, error.next_step, warn=True))
        return
    st.html(debugger_markup.side_title(side.side.upper(), side.ref))
    figure(
        figures.heat_map(
            values.grid(view),
            piece,
            f"{detail.view.id}-{side.side}-{layer}-{row}-{head}",
            tokens=words.tokens_of(points.side_of(detail, side.side).run, row),
            attention=True,
        ),
        key=f"debugger-attention-{side.side}",
    )
