"""What if: an element set to another value, the run gone on from there, and what it changed."""

from __future__ import annotations

import streamlit as st

from control_plane.domain.debugging import DebugRunDetail, Side
from control_plane.errors import InvalidInputError, SignalboxError
from control_plane.services import debugger
from control_plane.ui import current
from control_plane.ui.viewmodels import debugger as words
from control_plane.ui.viewmodels import debugger_values as values
from pages._ui import actions, debugger_new, debugger_reads, links, markup
from serving_agent.contract.inspection import Edit, InspectedRun, TensorSummary


def index_key(key: str) -> str:
    """Where the place that is edited is held."""
    return f"debugger-edit-index-{key}"


def form(run_id: str, point: str, tensor: int | str, summary: TensorSummary, key: str) -> None:
    """A place, a value, and the button that runs on from there."""
    index = index_key(key)
    st.session_state.setdefault(index, values.index_words(tuple(0 for _ in summary.shape)))
    with st.container(key=f"debugger-edit-form-{key}"):
        st.html(
            markup.card_title("What if", note="set elements, go on from here, and see how the answer changes")
        )
        with st.container(horizontal=True, vertical_alignment="bottom"):
            st.text_input(
                "Element",
                key=index,
                help="A place in every dimension, : for all of one: [0, 3] or [0, :]. Click a cell for it.",
                width=190,
            )
            st.text_input("New value", "0", key=f"debugger-edit-value-{key}", width=130)
            noted = f"debugger-edit-{key}-pressed"
            st.button(
                "Set and run on",
                key=f"debugger-edit-{key}",
                icon=":material/edit:",
                on_click=_note,
                args=(noted,),
            )
    if st.session_state.pop(noted, False):
        _apply(run_id, point, tensor, summary, key)


def _note(name: str) -> None:
    st.session_state[name] = True


def _apply(run_id: str, point: str, tensor: int | str, summary: TensorSummary, key: str) -> None:
    try:
        edit = Edit(
            point=point,
            tensor=tensor,
            index=values.parse_index(str(st.session_state[index_key(key)] or ""), summary.shape),
            value=values.parse_value(str(st.session_state[f"debugger-edit-value-{key}"] or "")),
        )
    except InvalidInputError as error:
        st.html(markup.problem(error.message, error.next_step, warn=True))
        return
    debugger_new.begin(
        lambda: debugger.edit(current.context(), run_id, (edit,), actor=actions.ACTOR),
        "The run goes on with the edit",
        layer=point,
    )


# --- what came of it ---


def changed(detail: DebugRunDetail) -> None:
    """The edits of a run, and its answer before and after them."""
    view = detail.view
    with st.container(border=True, key="debugger-changed"):
        st.html(markup.card_title("Edited", note=words.edits_words(view.edits)))
        parent = _parent(detail)
        if parent is None:
            st.html(markup.text("The run that it came from is gone, and with it the answer before the edit."))
            return
        for side in detail.sides:
            before = points_run(parent, side.side)
            if side.run is None or before is None:
                continue
            old = _answers(parent.view.id, side.side, before)
            new = _answers(view.id, side.side, side.run)
            title = f"Answer of {side.ref}" if len(detail.sides) > 1 else "Answer"
            if not new:
                st.html(markup.text(f"{title}: there is none after the edit."))
            elif words.unchanged(old, new):
                st.html(markup.text(f"{title}: the edit changed nothing."))
            else:
                st.html(
                    markup.card_title(title, note="what changed most on top")
                    + markup.table(words.answer_rows(old, new), mono=("Output",))
                )
        links.page("debugger", "Open the run before", key="debugger-parent", run=parent.view.id)


def _parent(detail: DebugRunDetail) -> DebugRunDetail | None:
    """The first run of the line, which was not edited; None where it is gone."""
    origin = next((view for view in detail.ancestors if not view.edits), None)
    if origin is None or not origin.ended:
        return None
    try:
        return debugger_reads.detail(origin.id)
    except SignalboxError:
        return None


def points_run(detail: DebugRunDetail, side: Side) -> InspectedRun | None:
    """What was seen of *side*."""
    return next((each.run for each in detail.sides if each.side == side), None)


def _answers(run_id: str, side: Side, run: InspectedRun) -> dict[str, list[float | str]]:
    """Elements of what the client gets, by output; without outputs that were not kept."""
    last = run.stages[-1]
    found: dict[str, list[float | str]] = {}
    for tensor in last.tensors:
        try:
            view = debugger.values(current.context(), run_id, side, last.name, tensor.name)
        except SignalboxError:
            continue
        flat = values.array(view).ravel().tolist()
        found[tensor.name] = [each if isinstance(each, str) else float(each) for each in flat]
    return found
