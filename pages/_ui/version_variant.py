"""What a version's page says of how it was optimised: the result card, and the job that made it."""

from __future__ import annotations

import streamlit as st

from control_plane.domain.views import VersionDetail
from control_plane.errors import NotFoundError
from control_plane.services import jobs
from control_plane.services.context import Context
from control_plane.ui.viewmodels import optimization_result as views
from pages._ui import links, markup, optimization_card


def draw(ctx: Context, version: VersionDetail) -> None:
    """Draw the card of a variant; nothing for any other version."""
    known = views.recorded(version.lineage)
    if known is None:
        return
    with st.container(border=True, key="variant"):
        words, action = links.row()
        words.html(markup.card_title("Optimised", note=f"measured beside {known.parent}"))
        with action:
            _job_link(ctx, known.job, known.trial)
        optimization_card.draw(views.of_version(version.ref, known))


def _job_link(ctx: Context, job: str, trial: int) -> None:
    try:
        jobs.get(ctx, job)
    except NotFoundError:
        return
    links.page("optimization", "Its job", key="variant-job", job=job, trial=str(trial))
