"""The way of one upload: its timeline, the questions a person must answer, and what became of it."""

from __future__ import annotations

from typing import Final

import streamlit as st

from control_plane.domain.upload import UploadState
from control_plane.domain.views import JobView, UploadView
from control_plane.services import catalogs, jobs, uploads, versions
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.viewmodels import provenance, quantities
from control_plane.ui.viewmodels import uploads as views
from control_plane.ui.viewmodels import versions as version_views
from pages._ui import actions, links, markup, network_form
from pages._ui.guard import refreshing
from serving_agent.contract.signature import DATATYPES

MOST_INPUTS: Final = 8


def _key(upload: UploadView, part: str) -> str:
    """Key of one answer to *upload*: another upload's answers are its own, acceptance above all."""
    return f"{part}-{upload.id}"


def draw(upload_id: str) -> None:
    """Draw the upload *upload_id*: watched while it is checked, with forms when it asks."""
    ctx = current.context()
    upload = uploads.get(ctx, upload_id)
    with st.container(border=True, key="upload-progress"):
        if _under_way(upload):
            _watch(upload_id)
        else:
            _state(upload, None)
            _outcome(ctx, upload)


def _under_way(upload: UploadView) -> bool:
    """Whether a job fetches or checks it."""
    return upload.state in {UploadState.RECEIVING, UploadState.CHECKING}


@refreshing(0.7)
def _watch(upload_id: str) -> None:
    """Follow the job; the page draws itself again, with forms and links, when it is over."""
    ctx = current.context()
    upload = uploads.get(ctx, upload_id)
    if not _under_way(upload):
        st.rerun(scope="app")
    actions.show_notices()
    _state(upload, jobs.get(ctx, upload.job_id) if upload.job_id else None)
    st.button("Cancel", key="upload-cancel", on_click=_cancel, args=(upload_id,))


def _state(upload: UploadView, job: JobView | None) -> None:
    note = f"{quantities.count(len(upload.files), 'file')}, {quantities.size(upload.size_bytes)}"
    st.html(markup.card_title(upload.version_ref or upload.model_name, upload.state, note=note))
    st.html(markup.steps(views.timeline(upload, job)))


def _cancel(upload_id: str) -> None:
    ctx = current.context()
    actions.act(lambda: uploads.cancel(ctx, upload_id, actor=actions.ACTOR), "Upload cancelled")


def _outcome(ctx: Context, upload: UploadView) -> None:
    if upload.state == UploadState.REGISTERED and upload.version_ref:
        _registered(ctx, upload.version_ref)
    elif upload.state == UploadState.REJECTED and upload.reason:
        st.html(markup.problem(upload.reason.sentence, upload.reason.next_step))
        st.caption(f"Reason code: {upload.reason.code}")
    elif upload.state == UploadState.NEEDS_INPUT:
        _questions(ctx, upload)


def _registered(ctx: Context, ref: str) -> None:
    version = versions.get(ctx, ref)
    rows = [
        ("Format", version_views.format_words(version.format)),
        ("Size", quantities.size(version.size_bytes)),
        ("Digest", version.digest),
        ("Inputs", version_views.side_words(version.signature.inputs)),
        ("Outputs", version_views.side_words(version.signature.outputs)),
    ]
    st.html(markup.facts(rows))
    with st.container(horizontal=True):
        links.page(
            "endpoints", f"Deploy {ref}", key="registered-deploy", icon=":material/rocket_launch:", deploy=ref
        )
        links.page("versions", "Open version", key="registered-open", icon=":material/inventory_2:", id=ref)


def _found(upload: UploadView) -> None:
    """Show what the gate read: format, its word, the signature, and what will be left out."""
    decision = (upload.verdict or {}).get("decision")
    rows = [
        ("Format", version_views.format_words(upload.format)),
        ("Gate", f"{provenance.decision_words(decision)}. {provenance.meaning(decision)}"),
    ]
    if upload.signature and upload.signature.inputs:
        rows.append(("Signature", version_views.signature_words(upload.signature)))
    left_out = provenance.left_out_rows(upload.verdict)
    table = markup.table(left_out, mono=("Left out",), tight=("Size",)) if left_out else ""
    st.html(markup.facts(rows) + table)


def _questions(ctx: Context, upload: UploadView) -> None:
    _found(upload)
    if upload.reason:
        st.html(markup.problem(upload.reason.message, upload.reason.next_step, warn=True))
    if views.ACCEPTANCE in upload.needs:
        st.html(
            markup.problem(
                "This file is a program",
                "Not only weights: serving it means running code from it on this machine. Its agent has "
                "limits on memory and time, but no sandbox yet: it can read and write what Signalbox can and "
                "reach the network. Accept only if you trust where it came from. Your name and the time are "
                "recorded with the version.",
                warn=True,
            )
        )
        st.checkbox("Run this program", key=_key(upload, "accept-program"))
    if views.ARCHITECTURE in upload.needs:
        network_form.draw(ctx.settings.architectures, _key(upload, "network"))
    if _asks_signature(upload):
        _signature_rows(upload)
    _optional(ctx, upload)
    with st.container(horizontal=True):
        st.button(
            "Continue",
            key="answer",
            type="primary",
            on_click=_answer,
            args=(upload,),
            disabled=not _answered(ctx, upload),
        )
        st.button("Cancel this upload", key="upload-cancel", on_click=_cancel, args=(upload.id,))


def _answered(ctx: Context, upload: UploadView) -> bool:
    """Whether there is an answer to what cannot be left out."""
    if views.ACCEPTANCE in upload.needs and not _accepted(upload):
        return False
    listed = ctx.settings.architectures
    return views.ARCHITECTURE not in upload.needs or network_form.ready(listed, _key(upload, "network"))


def _asks_signature(upload: UploadView) -> bool:
    """Whether inputs are asked: the check needs them, or a class of the operator's will."""
    named = views.ARCHITECTURE in upload.needs
    return network_form.asks_signature(_key(upload, "network")) if named else views.SIGNATURE in upload.needs


def _accepted(upload: UploadView) -> bool:
    return bool(st.session_state.get(_key(upload, "accept-program")))


def _signature_rows(upload: UploadView) -> None:
    st.html(
        markup.card_title("What does it take?")
        + markup.text(
            "The file does not say. Sizes with commas between, -1 for any; the first one is the batch. "
            "Outputs are found by trying."
        )
    )
    start = views.starting_rows(upload)
    named, count = _named(upload), _row_count(upload)
    for i in range(count):
        row = start[i] if i < len(start) else views.TensorRow(f"input_{i}", "FP32", "")
        name, datatype, shape = st.columns([1.4, 1, 2])
        name.text_input("Input", row.name, key=_key(upload, f"signature-name-{i}"), disabled=named)
        datatype.selectbox(
            "Type",
            DATATYPES,
            index=DATATYPES.index(row.datatype),
            key=_key(upload, f"signature-type-{i}"),
        )
        shape.text_input(
            "Shape", row.shape, key=_key(upload, f"signature-shape-{i}"), placeholder="-1, 1, 8, 8"
        )
    if count < MOST_INPUTS and not named:
        st.button(
            "Add input", key="signature-add", icon=":material/add:", on_click=_more_rows, args=(upload,)
        )


def _named(upload: UploadView) -> bool:
    """Whether the file itself names the inputs, so that only types and shapes are asked."""
    return bool(upload.signature and upload.signature.inputs)


def _row_count(upload: UploadView) -> int:
    """Inputs in the form: those the file names, otherwise as many as the person asked for."""
    start = len(views.starting_rows(upload))
    if _named(upload):
        return start
    return int(st.session_state.get(_key(upload, "signature-rows"), start))


def _more_rows(upload: UploadView) -> None:
    st.session_state[_key(upload, "signature-rows")] = _row_count(upload) + 1


def _optional(ctx: Context, upload: UploadView) -> None:
    with st.expander("Class labels and handler", key="upload-optional"):
        st.text_area(
            "Class labels",
            key=_key(upload, "answer-labels"),
            placeholder="cat, dog, fox",
            help="One a line or with commas, in the order of the outputs.",
        )
        files = [file.path for file in upload.files]
        known = catalogs.fitting(ctx, upload.format, files) if upload.format else None
        fitting = catalogs.handlers(ctx) if known is None else known
        titles = {each.name: each.title for each in fitting}
        st.selectbox(
            "Handler",
            [None, *titles],
            key=_key(upload, "answer-handler"),
            format_func=lambda name: titles.get(name, "Chosen by format"),
        )


def _typed_rows(upload: UploadView) -> tuple[views.TensorRow, ...]:
    def typed(part: str, i: int) -> str:
        return str(st.session_state[_key(upload, f"signature-{part}-{i}")])

    return tuple(
        views.TensorRow(typed("name", i), typed("type", i), typed("shape", i))
        for i in range(_row_count(upload))
    )


def _answer(upload: UploadView) -> None:
    ctx, state = current.context(), st.session_state

    def call() -> None:
        signature = views.declared_signature(_typed_rows(upload)) if _asks_signature(upload) else None
        named = views.ARCHITECTURE in upload.needs
        uploads.answer(
            ctx,
            upload.id,
            actor=actions.ACTOR,
            signature=signature,
            architecture=network_form.answer(_key(upload, "network")) if named else None,
            accept_program=True if _accepted(upload) else None,
            labels=views.split_labels(state.get(_key(upload, "answer-labels")) or "") or None,
            handler=state.get(_key(upload, "answer-handler")),
        )

    actions.act(call, "Thank you: checking goes on")
