"""Jobs: list with progress; one job (`?id=`) with its log, cancel and retry."""

import time

import streamlit as st

from control_plane.domain.job import JobState
from control_plane.domain.views import JobView
from control_plane.services import jobs
from control_plane.ui import current
from control_plane.ui.viewmodels import jobs as views
from control_plane.ui.viewmodels import quantities
from pages._ui import actions, links, markup, paging, shell
from pages._ui.guard import refreshing

PAGE_SIZE = 20
ANY = "Any"


@refreshing(1.0)
def listing() -> None:
    page = paging.current_page()
    state = st.session_state.get("state")
    found = jobs.search(
        current.context(), state=None if state in {None, ANY} else state, page=page, page_size=PAGE_SIZE
    )
    if not found.items:
        shell.empty("No job here", "Checks of uploads and the example run as jobs.")
        return
    for job in found.items:
        row(job)
    paging.draw(found, quantities.count(found.total, "job"))


def row(job: JobView) -> None:
    with st.container(border=True, key=f"job-{job.id}"):
        words, action = links.row()
        note = f"{quantities.ago(job.created_at, time.time())} · by {job.created_by}"
        words.html(markup.card_title(f"{job.kind} {job.subject}", job.state, note=note))
        if not views.is_final(job):
            words.progress(min(1.0, max(0.0, job.progress)), text=views.progress_words(job))
        elif job.reason:
            words.html(markup.text(job.reason.message))
        with action:
            links.page("jobs", "Open", key=f"open-{job.id}", id=job.id)


@refreshing(1.0)
def detail(job_id: str) -> None:
    ctx = current.context()
    job = jobs.get(ctx, job_id)
    st.html(
        markup.headline(
            f"{job.kind} {job.subject}",
            job.state,
            f"attempt {max(1, job.attempt)}",
            views.progress_words(job),
        )
    )
    if not views.is_final(job):
        st.progress(min(1.0, max(0.0, job.progress)))
    if job.reason:
        st.html(markup.problem(job.reason.message, job.reason.next_step))
    with st.container(horizontal=True):
        st.button("Cancel", key="job-cancel", disabled=views.is_final(job), on_click=cancel, args=(job.id,))
        able = job.state in {JobState.FAILED, JobState.CANCELLED}
        st.button("Retry", key="job-retry", disabled=not able, on_click=retry, args=(job.id,))
    actions.show_notices()
    if job.result:
        st.html(
            markup.card_title("Result")
            + markup.facts([(key, str(value)) for key, value in job.result.items()])
        )
    st.html(markup.card_title("Log", note="last 200 lines") + markup.log(jobs.log(ctx, job_id, lines=200)))


def cancel(job_id: str) -> None:
    ctx = current.context()
    actions.act(lambda: jobs.cancel(ctx, job_id, actor=actions.ACTOR), "Cancelling the job")


def retry(job_id: str) -> None:
    ctx = current.context()
    actions.act(lambda: jobs.retry(ctx, job_id, actor=actions.ACTOR), "The job is queued again")


def main() -> None:
    job_id = shell.param("id")
    if job_id:
        links.page("jobs", "All jobs", key="back", icon=":material/arrow_back:")
        detail(job_id)
        return
    shell.title("Jobs", "Long work, each in a process of its own: checks, training the example.")
    st.segmented_control(
        "State",
        [ANY, *JobState],
        default=ANY,
        key="state",
        bind="query-params",
        required=True,
        label_visibility="collapsed",
        format_func=lambda state: str(state).capitalize(),
        on_change=paging.first_page,
    )
    listing()


main()
