"""One optimisation job: how far it is, what came out, its log, and what may be done with it."""

from __future__ import annotations

import time
from typing import Final

import streamlit as st

from control_plane.domain.job import JobState
from control_plane.domain.optimization_orders import AUTOTUNE
from control_plane.domain.views import JobView
from control_plane.errors import InvalidInputError
from control_plane.services import jobs, optimization
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.viewmodels import jobs as job_views
from control_plane.ui.viewmodels import optimization as words
from control_plane.ui.viewmodels import optimization_result as views
from control_plane.ui.viewmodels import quantities
from pages._ui import (
    actions,
    links,
    markup,
    optimization_card,
    optimization_markup,
    optimization_trials,
)
from pages._ui.guard import refreshing

REFRESH_S: Final = 1.5
LOG_LINES: Final = 200


def draw(job_id: str) -> None:
    """Draw the page of one job. Raises NotFoundError, InvalidInputError for a job that optimises nothing."""
    ctx = current.context()
    job = jobs.get(ctx, job_id)
    if job.kind not in job_views.LAB_KINDS:
        raise InvalidInputError(
            f"Job {job.id} optimises nothing: it is of kind {job.kind}", next_step="Look for it under Jobs."
        )
    ref = job_views.parent_ref(job)
    with st.container(horizontal=True, key="optimization-back"):
        links.page("optimization", f"Optimise {ref}", key="back", icon=":material/arrow_back:", version=ref)
    _job(job.id)


@refreshing(REFRESH_S)
def _job(job_id: str) -> None:
    ctx = current.context()
    job = jobs.get(ctx, job_id)
    _head(job)
    actions.show_notices()
    if job.kind == AUTOTUNE:
        optimization_trials.draw(ctx, job)
    else:
        _outcome(ctx, job)
    _log(ctx, job)


def _head(job: JobView) -> None:
    when = f"started by {job.created_by} {quantities.ago(job.created_at, time.time())}"
    now = "" if job_views.is_final(job) else job_views.progress_words(job)
    note = " · ".join(filter(None, (now, when)))
    st.html(optimization_markup.head(job_views.title(job), note, job.state))
    if not job_views.is_final(job):
        st.progress(min(1.0, max(0.0, job.progress)))
    if job.reason:
        st.html(markup.problem(job.reason.message, job.reason.next_step))
    with st.container(horizontal=True, key="optimization-job-actions"):
        if not job_views.is_final(job):
            st.button("Cancel", key="job-cancel", icon=":material/stop:", on_click=_cancel, args=(job.id,))
        if job.state in (JobState.FAILED, JobState.CANCELLED):
            st.button("Retry", key="job-retry", icon=":material/replay:", on_click=_retry, args=(job.id,))


def _outcome(ctx: Context, job: JobView) -> None:
    """The result card of the one variant that the job makes."""
    for trial in optimization.trials(ctx, job.id):
        result = views.of_trial(trial, job_views.parent_ref(job))
        if result is not None:
            optimization_card.buttons(ctx, result)
            optimization_card.draw(result)
        elif trial.reason is not None and job.reason is None:
            st.html(markup.problem(words.sentence(trial.reason.message), trial.reason.next_step))
        elif not job_views.is_final(job):
            st.html(markup.card_title(words.trial_title(trial), words.trial_badge(trial), note=trial.stage))


def _log(ctx: Context, job: JobView) -> None:
    with st.expander("Log", key="optimization-log", expanded=job.state == JobState.FAILED):
        st.html(markup.log(jobs.log(ctx, job.id, lines=LOG_LINES)))


def _cancel(job_id: str) -> None:
    ctx = current.context()
    actions.act(lambda: jobs.cancel(ctx, job_id, actor=actions.ACTOR), "Cancelling the job")


def _retry(job_id: str) -> None:
    ctx = current.context()
    actions.act(lambda: jobs.retry(ctx, job_id, actor=actions.ACTOR), "The job is queued again")
