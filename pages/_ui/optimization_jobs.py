"""Optimisation jobs as a list, with a link to each one's page."""

from __future__ import annotations

import time
from typing import Final

import streamlit as st

from control_plane.domain.optimization_orders import AUTOTUNE, OPTIMIZE
from control_plane.domain.views import JobView
from control_plane.services import jobs
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.viewmodels import jobs as job_views
from control_plane.ui.viewmodels import quantities
from pages._ui import links, markup
from pages._ui.guard import refreshing

SHOWN: Final = 8
LOOKED_AT: Final = 100
"""Latest jobs of each kind among which those of a version are sought."""


def draw(ctx: Context, ref: str | None) -> None:
    """Draw the latest jobs, of the version *ref* or of all; nothing where there is none."""
    if _latest(ctx, ref):
        with st.container(border=True, key="optimization-jobs"):
            st.html(markup.card_title(f"Jobs of {ref}" if ref else "Latest jobs"))
            _rows(ref)


@refreshing(2.0)
def _rows(ref: str | None) -> None:
    for job in _latest(current.context(), ref):
        words, action = links.row()
        when = quantities.ago(job.created_at, time.time())
        words.html(
            markup.card_title(job_views.title(job), job.state, note=when)
            + ("" if job_views.is_final(job) else markup.text(job_views.progress_words(job)))
        )
        with action:
            links.page("optimization", "Open", key=f"open-{job.id}", job=job.id)


def _latest(ctx: Context, ref: str | None) -> list[JobView]:
    found = [
        job for kind in (AUTOTUNE, OPTIMIZE) for job in jobs.search(ctx, kind=kind, page_size=LOOKED_AT).items
    ]
    own = [job for job in found if ref is None or job_views.parent_ref(job) == ref]
    return sorted(own, key=lambda job: -job.created_at)[:SHOWN]
