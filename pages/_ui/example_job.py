"""The example: a button that trains and registers two models in a job, its progress, and what to do next."""

from __future__ import annotations

from typing import Final

import streamlit as st

from control_plane.domain.job import JobState
from control_plane.domain.views import JobView, Status
from control_plane.errors import NotFoundError
from control_plane.services import jobs, versions
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.viewmodels import jobs as job_views
from pages._ui import actions, links, markup
from pages._ui.guard import refreshing

KIND: Final = "example"
SUBJECT: Final = "digits"
_SEEN: Final = "example-state"


def draw(ctx: Context, status: Status) -> None:
    """The example's card: button before, progress during, next step after."""
    latest = _standing(ctx)
    if latest is None and status.versions:
        return
    with st.container(border=True, key="example"):
        if latest is None:
            _offer()
        else:
            _progress()


def _latest(ctx: Context) -> JobView | None:
    found = jobs.search(ctx, kind=KIND, page_size=1).items
    return found[0] if found else None


def _standing(ctx: Context) -> JobView | None:
    """The latest job of the example, unless versions that it registered were deleted since."""
    job = _latest(ctx)
    gone = job is not None and job.state == JobState.SUCCEEDED and not _exist(ctx, _made(job))
    return None if gone else job


def _made(job: JobView) -> tuple[str, ...]:
    return job_views.registered_versions(job) or (f"{SUBJECT}@1", f"{SUBJECT}@2")


def _exist(ctx: Context, refs: tuple[str, ...]) -> bool:
    try:
        for ref in refs:
            versions.get(ctx, ref)
    except NotFoundError:
        return False
    return True


def _offer() -> None:
    words, action = st.columns([4, 1.2], vertical_alignment="center")
    words.html(
        markup.card_title("No model at hand?")
        + markup.text(
            "Train two small digit classifiers here, in seconds, and register them as digits@1 and digits@2 "
            "with 100 held-out pictures to try them on."
        )
    )
    action.button(
        "Load the example",
        key="load-example",
        type="primary",
        on_click=_submit,
        width="stretch",
        shortcut="E",
    )


def _submit() -> None:
    ctx = current.context()
    actions.act(
        lambda: jobs.submit(ctx, KIND, subject=SUBJECT, params={}, actor=actions.ACTOR),
        "Training the example",
    )


@refreshing(0.7)
def _progress() -> None:
    ctx = current.context()
    job = _latest(ctx)
    if job is None:
        return
    _follow(job)
    actions.show_notices()
    if not job_views.is_final(job):
        st.html(markup.card_title("Training the example", job.state))
        st.progress(min(1.0, max(0.0, job.progress)), text=job_views.progress_words(job))
    elif job.state == JobState.SUCCEEDED:
        _next_steps(job)
    else:
        why = job.reason
        st.html(
            markup.problem(
                why.message if why else f"The example was {job.state}.", why.next_step if why else None
            )
        )
        st.button("Try again", key="retry-example", on_click=_submit)


def _follow(job: JobView) -> None:
    """Draw the whole page again once the job has ended: what it made changes the page around it."""
    before = st.session_state.get(_SEEN)
    st.session_state[_SEEN] = job.state
    if before is not None and before != job.state and job_views.is_final(job):
        st.rerun(scope="app")


def _next_steps(job: JobView) -> None:
    made = _made(job)
    st.html(
        markup.card_title("The example is ready", job.state)
        + markup.text(
            f"{' and '.join(made)} are registered. Deploy {made[0]} now, promote {made[-1]} afterwards."
        )
    )
    with st.container(horizontal=True):
        links.page(
            "endpoints",
            f"Deploy {made[0]}",
            key="deploy-example",
            icon=":material/rocket_launch:",
            deploy=made[0],
        )
        links.page(
            "versions", "See both versions", key="see-example", icon=":material/inventory_2:", model=SUBJECT
        )
