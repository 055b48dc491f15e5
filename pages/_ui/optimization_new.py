"""A new optimisation of a version: one method with its parameters, or a search over all that apply."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import streamlit as st

from control_plane.domain.optimization import Budget, Conditions, Objective
from control_plane.domain.optimization_views import CalibrationWish, LabView, MethodView
from control_plane.domain.views import JobView
from control_plane.errors import SignalboxError
from control_plane.services import optimization, versions
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.viewmodels import optimization as words
from control_plane.ui.viewmodels import optimization_form as views
from pages._ui import (
    actions,
    links,
    markup,
    offered_versions,
    optimization_calibration,
    optimization_fields,
    optimization_jobs,
    optimization_limits,
    shell,
)

SEARCH, ONE = "Autotune", "One method"
KEPT_S: Final = 5
"""How long what is known of a version serves all viewers, in seconds: its examples are checked for it."""
MINUTES: Final = 10.0
LEAST_MINUTES: Final = 0.5
MOST_MINUTES: Final = 24 * 60.0
_CHOICE: Final = "optimization-version"


def draw(wanted: str | None) -> None:
    """Draw the choice of a version and, for *wanted* (`model@N`), the form."""
    ctx = shell.title(
        "Optimisation",
        "Makes variants of a version, measures each beside its parent on this machine, keeps what is proven.",
    )
    ref = _version(ctx, wanted)
    if ref is None:
        optimization_jobs.draw(ctx, None)
        return
    lab = _lab(ctx, ctx.settings.database, ref)
    left, right = shell.split([1.7, 1])
    with left:
        _recipes(lab)
    with right:
        _known(lab)
        optimization_jobs.draw(ctx, lab.ref)


@st.cache_data(ttl=KEPT_S, show_spinner="Looking at the version …", max_entries=32)
def _lab(_ctx: Context, home: str, ref: str) -> LabView:  # noqa: ARG001  home is part of the cache's key
    return optimization.lab(_ctx, ref)


def _version(ctx: Context, wanted: str | None) -> str | None:
    """The version to optimise; None while none is chosen."""
    refs = offered_versions.refs(ctx, missing="There is no version to optimise")
    if not refs:
        return None
    chosen = versions.get(ctx, wanted).ref if wanted else None
    if chosen is not None and chosen not in refs:
        refs.insert(0, chosen)
    st.selectbox(
        "Version",
        refs,
        index=refs.index(chosen) if chosen else None,
        key=f"{_CHOICE}-{chosen}",
        placeholder="Choose a version to optimise",
        help="Newest first. Type to search.",
        width=420,
        on_change=_choose,
        args=(f"{_CHOICE}-{chosen}",),
    )
    return chosen


def _choose(key: str) -> None:
    st.query_params["version"] = str(st.session_state[key])
    st.query_params.pop("method", None)


def _recipes(lab: LabView) -> None:
    with st.container(border=True, key="optimization-form"):
        recipe = st.segmented_control(
            "Recipe",
            [SEARCH, ONE],
            default=ONE if shell.param("method") else SEARCH,
            key="recipe",
            required=True,
            label_visibility="collapsed",
        )
        if all(method.inapplicable for method in lab.methods):
            shell.empty("No method applies to this version", "The list below says why.")
            _refused(lab, words.ALL)
        elif recipe == SEARCH:
            _search(lab)
        else:
            _one(lab)


# --- one method ---


def _one(lab: LabView) -> None:
    family = st.pills(
        "Methods",
        words.families(lab.methods),
        default=words.ALL,
        key="family",
        required=True,
        label_visibility="collapsed",
    )
    offered = words.offered(lab.methods, str(family))
    why_not = words.why_not(lab.methods, shell.param("method"))
    if why_not:
        st.html(markup.problem(f"{shell.param('method')} cannot be used here", why_not, warn=True))
    if offered:
        _method(lab, offered)
    else:
        shell.empty("None of these applies to this version", "The list below says why.")
    _refused(lab, str(family))


def _method(lab: LabView, offered: list[MethodView]) -> None:
    names = [method.name for method in offered]
    wanted = shell.param("method")
    place = st.selectbox(
        "Method",
        range(len(offered)),
        index=names.index(wanted) if wanted in names else 0,
        key=f"method-{'-'.join(names)}",
        format_func=lambda at: offered[at].title,
    )
    method = offered[place]
    st.html(markup.text(method.description))
    key = f"optimize-{lab.ref}-{method.name}"
    ready = _checked(lambda: _wish(lab, method, key))
    st.html(markup.text(views.estimate_words(method)))
    _start(f"Make and measure it: {method.title}", ready, "optimize-start")


def _wish(lab: LabView, method: MethodView, key: str) -> Callable[[Context], JobView]:
    """The submission that the form describes. Raises InvalidInputError."""
    params = optimization_fields.draw(method.params, key=key)
    calibration = optimization_calibration.draw(lab, key) if method.calibrated else None
    conditions, budget = optimization_limits.draw(key)
    return _submission(lab.ref, method.name, params, calibration, conditions, budget)


def _submission(
    ref: str,
    method: str,
    params: Mapping[str, Any],
    calibration: CalibrationWish | None,
    conditions: Conditions,
    budget: Budget,
) -> Callable[[Context], JobView]:
    return lambda ctx: optimization.submit(
        ctx,
        ref,
        method,
        params,
        calibration=calibration,
        conditions=conditions,
        budget=budget,
        actor=actions.ACTOR,
    )


def _refused(lab: LabView, family: str) -> None:
    rows = words.refused_rows(lab.methods, family)
    if rows:
        title = f"{len(rows)} of the methods do not apply to {lab.ref}"
        with st.expander(title, key="refused-methods"):
            st.html(markup.table(rows, tight=("Method",)))


# --- a search ---


def _search(lab: LabView) -> None:
    st.html(markup.text(views.search_words(lab)))
    ready = _checked(lambda: _search_wish(lab, f"autotune-{lab.ref}"))
    _start("Start the search", ready, "autotune-start")
    _refused(lab, words.ALL)


def _search_wish(lab: LabView, key: str) -> Callable[[Context], JobView]:
    one, two = st.columns([1.8, 1], vertical_alignment="top")
    objective = one.segmented_control(
        "Objective",
        list(Objective),
        default=Objective.LATENCY,
        key=f"{key}-objective",
        required=True,
        format_func=words.objective_words,
    )
    one.html(markup.text(words.objective_help(str(objective))))
    minutes = two.number_input(
        "Time, minutes",
        LEAST_MINUTES,
        MOST_MINUTES,
        MINUTES,
        step=1.0,
        format="%g",
        key=f"{key}-minutes",
        help="The search stops earlier when nothing is left to try. A restart goes on where it was.",
    )
    calibrated = [method for method in lab.methods if method.calibrated and method.inapplicable is None]
    calibration = optimization_calibration.draw(lab, key) if calibrated else None
    conditions, budget = optimization_limits.draw(key)
    return lambda ctx: optimization.autotune(
        ctx,
        lab.ref,
        str(objective),
        minutes=float(minutes),
        budget=budget,
        conditions=conditions,
        calibration=calibration,
        actor=actions.ACTOR,
    )


# --- both ---


def _checked(form: Callable[[], Callable[[Context], JobView]]) -> Callable[[Context], JobView] | None:
    """What *form* describes; a card with the problem and None while it cannot be started."""
    try:
        return form()
    except SignalboxError as error:
        st.html(markup.problem(error.message, error.next_step, warn=True))
        return None


def _start(label: str, ready: Callable[[Context], JobView] | None, key: str) -> None:
    """The button that queues the job."""
    if (
        actions.pressed(label, key, icon=":material/play_arrow:", disabled=ready is None)
        and ready is not None
    ):
        _submit(ready)
        st.rerun()


def _submit(submission: Callable[[Context], JobView]) -> None:
    """Queue the job and go to its page."""
    ctx = current.context()
    queued: list[str] = []
    actions.act(
        lambda: queued.append(submission(ctx).id),
        "The job is queued",
        then={"version": None, "method": None},
    )
    if queued:
        st.query_params["job"] = queued[0]


def _known(lab: LabView) -> None:
    with st.container(border=True, key="optimization-known"):
        st.html(
            markup.card_title("Measured here")
            + markup.text(f"{views.machine_words(lab.machine)}. Other machines may have other winners.")
            + markup.text(views.holdout_words(lab))
        )
        links.page("versions", f"Open {lab.ref}", key="lab-version", id=lab.ref)
