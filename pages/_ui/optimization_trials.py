"""A search's trials: Pareto chart, the report of one beside it, all of them as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import streamlit as st

from control_plane.domain.optimization import Objective
from control_plane.domain.optimization_views import SearchView, TrialView
from control_plane.domain.views import JobView
from control_plane.errors import NotFoundError
from control_plane.services import jobs, optimization
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.components.pareto import pareto
from control_plane.ui.viewmodels import jobs as job_views
from control_plane.ui.viewmodels import optimization as words
from control_plane.ui.viewmodels import optimization_result as results
from control_plane.ui.viewmodels import optimization_search as views
from pages._ui import actions, markup, optimization_card, shell

_AXIS: Final = "optimization-axis"
_PARAM: Final = "trial"


def draw(ctx: Context, job: JobView) -> None:
    """Draw where the search is, its chart, the chosen trial and the table."""
    search = optimization.search_of(ctx, job.id)
    trials = optimization.trials(ctx, job.id)
    st.html(markup.text(f"{views.counts_words(trials)} · {views.spent_words(search)}"))
    if not trials:
        shell.empty("Nothing was tried yet", "Trials appear here as soon as the job has read the version.")
        return
    chosen = views.chosen(trials, shell.param(_PARAM), search)
    left, right = shell.split([1.35, 1])
    with left:
        with st.container(border=True, key="optimization-pareto"):
            _chart(job, search, trials, chosen)
        _table(search, trials)
    with right, st.container(border=True, key="optimization-trial"):
        _trial(ctx, search, trials, chosen)


def _table(search: SearchView, trials: Sequence[TrialView]) -> None:
    """The same as the chart, as rows; and what came to nothing."""
    with st.container(border=True, key="trial-table"):
        st.html(
            markup.card_title("Trials", note="speed as a multiple of the parent's, the best trial on top")
            + markup.table(views.rows(trials, search), tight=("Trial", "State", "Same answer", "Size"))
        )
    reasons = views.reason_rows(trials)
    if reasons:
        with st.container(border=True, key="trial-reasons"):
            st.html(
                markup.card_title("Why not", note="rejected, dropped and failed trials")
                + markup.table(reasons, tight=("Trial",))
            )


def _chart(job: JobView, search: SearchView, trials: Sequence[TrialView], chosen: TrialView | None) -> None:
    axis = st.segmented_control(
        "Horizontal axis",
        list(Objective),
        default=Objective(search.objective),
        key=_AXIS,
        required=True,
        label_visibility="collapsed",
        format_func=words.objective_words,
    )
    chart = views.chart(trials, str(axis), search.ref, chosen.number if chosen else None)
    pareto(chart, view=f"{job.id}-{axis}", on_picked=_choose, key="pareto")


def _choose(number: int) -> None:
    st.query_params[_PARAM] = str(number)


# --- one trial ---


def _trial(ctx: Context, search: SearchView, trials: Sequence[TrialView], chosen: TrialView | None) -> None:
    by_number = {trial.number: trial for trial in trials}
    now = chosen.number if chosen else None
    key = f"trial-{now}"
    st.selectbox(
        "Trial",
        list(by_number),
        index=list(by_number).index(now) if now is not None else None,
        key=key,
        placeholder="Choose a trial",
        format_func=lambda number: views.label(by_number[number]),
        on_change=_chosen,
        args=(key,),
    )
    if chosen is None:
        st.html(markup.text("The report of a trial is shown here: choose one above, or click a point."))
        return
    _report(ctx, search, chosen)


def _chosen(key: str) -> None:
    _choose(int(st.session_state[key]))


def _report(ctx: Context, search: SearchView, trial: TrialView) -> None:
    result = results.of_trial(trial, search.ref)
    if result is None:
        st.html(
            markup.card_title(words.trial_title(trial), words.trial_badge(trial), note=trial.stage)
            + markup.text(views.why(trial) or "Nothing was measured of it yet.")
        )
        return
    _register(ctx, trial)
    optimization_card.buttons(ctx, result)
    optimization_card.draw(result)
    if trial.reason is not None:
        st.html(markup.text(views.why(trial)))


def _register(ctx: Context, trial: TrialView) -> None:
    """The button that makes a version of the trial; its progress once it was pressed."""
    if trial.version_ref is not None:
        return
    job = _registering(ctx, trial)
    if job is not None and not job_views.is_final(job):
        st.progress(min(1.0, max(0.0, job.progress)), text=f"Registering · {job_views.progress_words(job)}")
        return
    if job is not None and job.reason:
        st.html(markup.problem(job.reason.message, job.reason.next_step))
    if trial.registrable:
        st.button(
            "Register",
            key=f"register-{trial.number}",
            type="primary",
            icon=":material/add_box:",
            help="Makes a version of it, which can be deployed and rolled out.",
            on_click=_queue,
            args=(trial.job_id, trial.number),
        )


def _registering(ctx: Context, trial: TrialView) -> JobView | None:
    try:
        return jobs.get(ctx, trial.registering_job) if trial.registering_job else None
    except NotFoundError:
        return None


def _queue(job_id: str, number: int) -> None:
    ctx = current.context()
    actions.act(
        lambda: optimization.register_trial(ctx, job_id, number, actor=actions.ACTOR),
        f"Trial {number} is being registered",
    )
