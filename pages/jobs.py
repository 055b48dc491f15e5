"""Jobs: list with progress (`?state=`, `?kind=`); one job (`?id=`) with its log, cancel and retry."""

import time

import streamlit as st

from control_plane.domain.job import JobState
from control_plane.domain.views import JobView
from control_plane.services import catalogs, jobs
from control_plane.ui import current
from control_plane.ui.viewmodels import jobs as views
from control_plane.ui.viewmodels import quantities
from pages._ui import actions, links, markup, paging, shell
from pages._ui.guard import refreshing

PAGE_SIZE = 20
MOST_VERSIONS = 4
ANY = "Any"


@refreshing(1.0)
def listing() -> None:
    page = paging.current_page()
    state, kind = chosen("state"), chosen("kind")
    found = jobs.search(current.context(), state=state, kind=kind, page=page, page_size=PAGE_SIZE)
    if not found.items:
        shell.empty(
            "No job here",
            "Choose Any to see the others."
            if state or kind
            else "Checks of uploads, the example and optimisations run as jobs.",
        )
        return
    for job in found.items:
        row(job)
    paging.draw(found, quantities.count(found.total, "job"))


def chosen(filter_key: str) -> str | None:
    value = st.session_state.get(filter_key)
    return None if value in {None, ANY} else str(value)


def row(job: JobView) -> None:
    with st.container(border=True, key=f"job-{job.id}"):
        words, action = links.row()
        note = f"{quantities.ago(job.created_at, time.time())} · by {job.created_by}"
        words.html(markup.card_title(views.title(job), job.state, note=note))
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
            views.title(job),
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
        outcome(job)
    actions.show_notices()
    if job.result and job.kind not in views.LAB_KINDS:
        st.html(
            markup.card_title("Result")
            + markup.facts([(key, str(value)) for key, value in job.result.items()])
        )
    st.html(markup.card_title("Log", note="last 200 lines") + markup.log(jobs.log(ctx, job_id, lines=200)))


def outcome(job: JobView) -> None:
    """Links to what came of the job."""
    if job.kind in views.LAB_KINDS:
        links.page("optimization", "Open the report", key="job-report", icon=":material/speed:", job=job.id)
    if job.kind in views.PROFILE_KINDS and job.result:
        links.page(
            "profiling", "Open the report", key="job-profile", icon=":material/speed:", run=report_of(job)
        )
    for ref in views.registered_versions(job)[:MOST_VERSIONS]:
        links.page("versions", f"Open {ref}", key=f"job-{ref}", icon=":material/inventory_2:", id=ref)


def report_of(job: JobView) -> str:
    """Id of the profile that a job has taken."""
    return str((job.result or {})["profile"])


def cancel(job_id: str) -> None:
    ctx = current.context()
    actions.act(lambda: jobs.cancel(ctx, job_id, actor=actions.ACTOR), "Cancelling the job")


def retry(job_id: str) -> None:
    ctx = current.context()
    actions.act(lambda: jobs.retry(ctx, job_id, actor=actions.ACTOR), "The job is queued again")


def main() -> None:
    links.follow("id")
    job_id = shell.param("id")
    if job_id:
        links.page("jobs", "All jobs", key="back", icon=":material/arrow_back:")
        detail(job_id)
        return
    shell.title(
        "Jobs", "Long work, each in a process of its own: checks, training the example, optimisations."
    )
    filters()
    listing()


def filters() -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="job-filters"):
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
        st.selectbox(
            "Kind",
            [ANY, *catalogs.all_job_kinds()],
            key="kind",
            bind="query-params",
            label_visibility="collapsed",
            width=220,
            format_func=lambda kind: "Any kind" if kind == ANY else views.kind_words(kind),
            on_change=paging.first_page,
        )


main()
