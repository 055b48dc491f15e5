"""The request's four stages: what each produced, or where, when and why it failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import streamlit as st

from control_plane.domain.debugging import DebugRunDetail, SideView
from control_plane.domain.divergence import Pair
from control_plane.errors import SignalboxError
from control_plane.services import debugger
from control_plane.ui import current
from control_plane.ui.viewmodels import debugger as words
from control_plane.ui.viewmodels import debugger_points as points
from control_plane.ui.viewmodels import debugger_tensors as tensors
from control_plane.ui.viewmodels import debugger_values as values
from control_plane.ui.viewmodels.badges import Badge
from pages._ui import debugger_inspector, debugger_markup, debugger_reads, markup
from pages._ui.guard import refreshing
from serving_agent.contract.inspection import InspectedRun, Stage, TensorSummary

SIDES: Final = {"a": "A", "b": "B"}
MAX_TEXTS: Final = 20


def strip(side: SideView, *, several: bool) -> None:
    """The steps of one side; the error of the one that failed."""
    run = side.run
    if run is None:
        return
    title = debugger_markup.side_title(SIDES[side.side], side.ref) if several else ""
    with st.container(key=f"debugger-strip-{side.side}"):
        st.html(title + markup.steps(words.steps(run)))
        failed = words.failed_stage(run)
        if failed is not None and failed.failure is not None:
            st.html(
                markup.problem(
                    words.failure_head(failed, failed.failure), words.failure_place(failed, failed.failure)
                )
            )


@refreshing(None)
def draw(run_id: str) -> None:
    """All stages with their tensors."""
    detail = debugger_reads.detail(run_id)
    for side in detail.sides:
        if side.run is None:
            continue
        if len(detail.sides) > 1:
            st.html(debugger_markup.side_title(SIDES[side.side], side.ref))
        for stage in side.run.stages:
            _stage(detail, side, side.run, stage)
        st.html(markup.text(words.cost(side.run)))


def _stage(detail: DebugRunDetail, side: SideView, run: InspectedRun, stage: Stage) -> None:
    with st.container(border=True, key=f"debugger-stage-{side.side}-{stage.name}"):
        state = {
            "done": Badge("✓", "Success", "good"),
            "failed": Badge("✕", "Failed", "bad"),
            "not_reached": Badge("○", "Not reached", "idle"),
        }[stage.state]
        st.html(markup.card_title(words.stage_title(stage.name), state, note=words.stage_note(stage)))
        if not stage.tensors:
            return
        st.html(debugger_markup.tensors([tensors.row(tensor) for tensor in stage.tensors]))
        _previews(detail.view.id, side, stage)
        if stage.name == "preprocess":
            _pieces(run)
        _differences(detail, side, stage)
        if st.toggle("Values", key=f"debugger-values-{side.side}-{stage.name}"):
            debugger_inspector.of_stage(detail.view.id, side.side, stage.name)


def _previews(run_id: str, side: SideView, stage: Stage) -> None:
    """A picture or the text of each tensor that is one."""
    pictures = []
    for tensor in stage.tensors:
        if tensor.offset is None:
            continue
        if tensor.datatype == "BYTES":
            st.html(debugger_markup.texts(_texts(run_id, side, stage, tensor)))
        elif picture := _picture(run_id, side, stage, tensor):
            pictures.append((picture, f"{tensor.name}, first row"))
    if pictures:
        st.html(debugger_markup.pictures(pictures))


def _texts(run_id: str, side: SideView, stage: Stage, tensor: TensorSummary) -> list[str]:
    try:
        view = debugger.values(current.context(), run_id, side.side, stage.name, tensor.name)
    except SignalboxError as error:
        return [error.message]
    return values.text_of(values.array(view))[:MAX_TEXTS]


def _picture(run_id: str, side: SideView, stage: Stage, tensor: TensorSummary) -> str | None:
    if not values.maybe_image(tensor.shape):
        return None
    try:
        view = debugger.values(
            current.context(),
            run_id,
            side.side,
            stage.name,
            tensor.name,
            stop=(1, *tensor.shape[1:]),
        )
    except SignalboxError:
        return None
    return None if view.truncated else values.image_of(values.array(view))


def _pieces(run: InspectedRun) -> None:
    for row in range(min(len(run.tokens), MAX_TEXTS)):
        st.html(debugger_markup.token_pieces(words.tokens_of(run, row)))


def _differences(detail: DebugRunDetail, side: SideView, stage: Stage) -> None:
    """How the other side's tensors of this stage differ, said once, at A."""
    if detail.comparison is None or side.side != "a":
        return
    found: Sequence[Pair] = [pair for pair in detail.comparison.stages if pair.a == stage.name]
    if found:
        st.html(markup.table(points.stage_rows(found), tight=("A against B",)))
