"""Upload: the form, the way of one upload (`?id=`) and the recent ones."""

import time

import streamlit as st

from control_plane.domain.upload import UploadState
from control_plane.services import uploads, versions
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
        sent = upload_form(models=models, resume=resume, actor=actions.ACTOR, key="upload")
    if sent and sent != upload_id:
        st.query_params["id"] = sent
        st.rerun()


def command_line() -> None:
    with st.expander("From a shell or a script", icon=":material/terminal:", key="upload-cli"):
        st.code("signalbox push PATH --model NAME --accept-program --meta dataset=imagenet", language="bash")


def main() -> None:
    ctx = shell.title(
        "Upload",
        "A file or a folder becomes an immutable version. It is read and checked before anything in it runs.",
    )
    upload_id = shell.param("id")
    waiting = upload_id is not None and uploads.get(ctx, upload_id).state != UploadState.RECEIVING
    if upload_id and waiting:
        upload_progress.draw(upload_id)
        links.page("upload", "Upload another", key="another", icon=":material/upload:")
    else:
        form(upload_id)
        command_line()
    st.subheader("Recent uploads", anchor=False)
    recent()


main()
