"""Upload: the form, the way of one upload (`?id=`) and the recent ones."""

import time
from functools import partial

import streamlit as st

from control_plane.domain.upload import UploadState
from control_plane.domain.views import UploadView
from control_plane.services import imports, uploads, versions
from control_plane.ui import current
from control_plane.ui.components.upload import upload_form
from control_plane.ui.viewmodels import quantities
from pages._ui import actions, links, markup, shell, upload_progress
from pages._ui.guard import refreshing


@refreshing(3.0)
def recent() -> None:
    found = uploads.recent(current.context(), page_size=10)
    if not found.items:
        shell.empty("Nothing was uploaded yet", "Files you send appear here with what became of them.")
    for upload in found.items:
        words, action = links.row()
        when = quantities.ago(upload.created_at, time.time())
        note = f"{quantities.size(upload.size_bytes)} · {when} · by {upload.created_by}"
        words.html(markup.card_title(upload.version_ref or upload.model_name, upload.state, note=note))
        with action:
            links.page("upload", "Open", key=f"upload-{upload.id}", id=upload.id)


def form(upload_id: str | None) -> None:
    ctx = current.context()
    resume = uploads.get(ctx, upload_id) if upload_id else None
    models = [model.name for model in versions.models(ctx, page_size=200).items]
    with st.container(border=True, key="upload-form"):
        sent = upload_form(
            models=models, resume=resume, unfinished=interrupted(), actor=actions.ACTOR, key="upload"
        )
    if sent:
        st.query_params["id"] = sent
        st.rerun()


def interrupted() -> tuple[UploadView, ...]:
    """Return uploads that wait for the rest of their bytes from somebody."""
    waiting = uploads.recent(current.context(), state=UploadState.RECEIVING, page_size=20).items
    return tuple(upload for upload in waiting if upload.reference is None)


@refreshing(3.0)
def unfinished() -> None:
    actions.show_notices()
    waiting = interrupted()
    if not waiting:
        return
    st.subheader("Unfinished", anchor=False)
    for upload in waiting:
        words, action = links.row()
        received = f"{quantities.size(upload.received_bytes)} of {quantities.size(upload.size_bytes)}"
        last = quantities.ago(upload.updated_at, time.time())
        note = f"{received} · last bytes {last} · choose the same files to send the rest"
        words.html(markup.card_title(upload.model_name, upload.state, note=note))
        with action, st.container(horizontal=True, vertical_alignment="center"):
            links.page("upload", "Go on", key=f"go-on-{upload.id}", id=upload.id)
            actions.confirm(
                "Discard",
                f"What has arrived for **{upload.model_name}**, {received}, is removed.",
                partial(_discard, upload.id),
                key=f"discard-{upload.id}",
                icon=":material/delete:",
            )


def _discard(upload_id: str) -> None:
    ctx = current.context()
    actions.act(lambda: uploads.cancel(ctx, upload_id, actor=actions.ACTOR), "Upload discarded")


def by_reference() -> None:
    with (
        st.expander("From this machine or a bucket", icon=":material/folder_open:", key="upload-reference"),
        st.form("reference", border=False),
    ):
        st.text_input(
            "Path or URL",
            key="reference-place",
            placeholder="/data/checkpoints/run-7 or s3://models/run-7/",
            help="Signalbox fetches it itself. Which folders and URLs it may read is set with "
            "SIGNALBOX_IMPORT_ROOTS and SIGNALBOX_IMPORT_URLS.",
        )
        st.text_input("Becomes a version of", key="reference-model", placeholder="digits", max_chars=63)
        st.checkbox("If it is a program, run it: I trust where it comes from", key="reference-accept")
        st.form_submit_button("Fetch", key="reference-fetch", on_click=_fetch)


def _fetch() -> None:
    ctx, state = current.context(), st.session_state

    def call() -> None:
        made = imports.create(
            ctx,
            model=state["reference-model"].strip(),
            reference=state["reference-place"].strip(),
            actor=actions.ACTOR,
            accept_program=bool(state["reference-accept"]),
        )
        st.query_params["id"] = made.id

    actions.act(call, "Fetching")


def command_line() -> None:
    with st.expander("From a shell or a script", icon=":material/terminal:", key="upload-cli"):
        st.code("signalbox push PATH --model NAME --accept-program --meta dataset=imagenet", language="bash")


def _takes_files(upload: UploadView) -> bool:
    return upload.state == UploadState.RECEIVING and upload.reference is None


def main() -> None:
    links.follow("id")
    ctx = shell.title(
        "Upload",
        "A file or a folder becomes an immutable version. It is read and checked before anything in it runs.",
    )
    upload_id = shell.param("id")
    if upload_id and not _takes_files(uploads.get(ctx, upload_id)):
        upload_progress.draw(upload_id)
        links.page("upload", "Upload another", key="another", icon=":material/upload:")
    else:
        form(upload_id)
        by_reference()
        command_line()
    if not upload_id:
        unfinished()
    st.subheader("Recent uploads", anchor=False)
    recent()


main()
