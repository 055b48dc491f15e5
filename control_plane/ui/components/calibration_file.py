"""A file of calibration rows: sent straight to the REST API, which checks every row of it.

Bytes never pass through Streamlit: its uploader would hold them in memory.
"""

from __future__ import annotations

from typing import Any, TypedDict
from urllib.parse import urlencode

import streamlit as st

from control_plane.domain.calibration import FORM, MAX_BYTES, USED_ROWS
from control_plane.ui.components import assets

_component = st.components.v2.component(
    "signalbox_calibration_file",
    html='<div class="rows"><label>Rows to calibrate with'
    '<input type="file" accept=".json,.jsonl,.ndjson,.npz"></label><p class="hint" role="status"></p></div>',
    css=assets.text("calibration_file.css"),
    js=assets.text("calibration_file.js"),
    isolate_styles=True,
)


class Kept(TypedDict):
    """Rows that the server has checked and keeps."""

    digest: str
    rows: int


def calibration_file(*, ref: str, actor: str, kept: Kept | None, key: str) -> Kept | None:
    """Mount the form; returns the rows of *ref* that were sent and fit, *kept* before any were."""
    result: Any = _component(
        key=key,
        data={
            "url": f"/api/v1/optimization/calibration?{urlencode({'version': ref})}",
            "actor": actor,
            "kept": kept,
            "hint": FORM,
            "maxBytes": MAX_BYTES,
            "usedRows": USED_ROWS,
        },
        on_kept_change=lambda: None,
    )
    sent: Kept | None = result.kept
    return sent or kept
