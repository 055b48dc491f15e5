"""Upload form: sends files straight to `/api/v1/tus`, with progress, speed, pause and cancel.

Bytes never pass through Streamlit: its uploader would hold whole checkpoints in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from control_plane.domain.views import UploadView
from control_plane.ui.components import assets, tus_client

_component = st.components.v2.component(
    "signalbox_upload",
    html=assets.text("upload.html"),
    css=assets.text("upload.css"),
    js=assets.text("upload.js"),
    isolate_styles=True,
)


def upload_form(
    *,
    models: Sequence[str],
    resume: UploadView | None,
    unfinished: Sequence[UploadView] = (),
    actor: str,
    key: str,
) -> str | None:
    """Mount the form; returns the id of the upload once all its bytes have arrived, otherwise None.

    models: names to suggest. resume: an upload whose bytes did not all arrive, to send the rest of.
    unfinished: others like it, gone on with when just their files are chosen.
    """
    result = _component(
        key=key,
        data={
            "api": "/api/v1",
            "tus": tus_client.ADDRESS,
            "actor": actor,
            "models": list(models),
            "resume": resumable(resume) if resume else None,
            "unfinished": [resumable(upload) for upload in unfinished],
        },
        on_sent_change=lambda: None,
    )
    return result.sent or None


def resumable(upload: UploadView) -> dict[str, object]:
    """What the form needs to go on with *upload*: id, model, and its files; sizes in bytes, times in ms."""
    files = [
        {
            "path": file.path,
            "size": file.size_bytes,
            "modified": file.modified_ms,
            "done": file.sha256 is not None,
        }
        for file in upload.files
    ]
    return {"id": upload.id, "model": upload.model_name, "received": upload.received_bytes, "files": files}
