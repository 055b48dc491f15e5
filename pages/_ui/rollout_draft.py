"""The draft of a rollout: versions, plan, what changes, what is to be expected, and the start button."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import streamlit as st

from control_plane.domain.endpoint import EndpointGoal
from control_plane.domain.rollout import (
    DEFAULT_BAKE_S,
    DEFAULT_MIN_REQUESTS,
    DEFAULT_MIRROR,
    MAX_BAKE_S,
    Plan,
    Step,
    Strategy,
)
from control_plane.domain.views import EndpointView
from control_plane.errors import SignalboxError
from control_plane.services import endpoints, rollout_plans, rollouts, versions
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.viewmodels import rollout_draft as views
from control_plane.ui.viewmodels import rollouts as words
from pages._ui import (
    actions,
    links,
    markup,
    rollout_guardrails,
    rollout_markup,
    rollout_prediction,
    shell,
    waiver,
)

OFFERED: Final = 200
NEW: Final = "new"
NOT_OF_THE_PLAN: Final = ("supersede", "waiver")
"""Arguments of a rollout's start that change nothing about its steps."""


def draw(endpoint: str, candidate: str | None) -> None:
    """Draw the form; *endpoint* may be "new", to be chosen here."""
    links.page("rollouts", "All rollouts", key="back", icon=":material/arrow_back:")
    ctx = shell.title(
        "New rollout",
        "Nothing is sent to the candidate before it has started beside stable and passed its gates.",
    )
    running = {view.name: view for view in endpoints.list_all(ctx) if view.goal == EndpointGoal.RUNNING}
    if not running:
        shell.empty("No endpoint is running", "Deploy a version first; a rollout brings the next one.")
        links.page("endpoints", "Deploy", key="draft-deploy", icon=":material/rocket_launch:", deploy=NEW)
        return
    chosen = _versions(ctx, running, endpoint, candidate)
    if chosen is not None:
        _form(ctx, *chosen)


def _versions(
    ctx: Context, running: dict[str, EndpointView], endpoint: str, candidate: str | None
) -> tuple[EndpointView, str, str] | None:
    """Choose endpoint, candidate and strategy; None while there is no candidate."""
    one, two, three = st.columns([1, 1, 1.3])
    names = list(running)
    name = one.selectbox(
        "Endpoint", names, index=names.index(endpoint) if endpoint in running else 0, key="draft-endpoint"
    )
    view = running[name]
    offered = views.candidates(versions.search(ctx, page_size=OFFERED).items, view.version_ref)
    if candidate and candidate not in offered and candidate != view.version_ref:
        offered.insert(0, versions.get(ctx, candidate).ref)
    if not offered:
        shell.empty("There is no other version", f"Upload one that can take the place of {view.version_ref}.")
        return None
    ref = two.selectbox(
        "Candidate",
        offered,
        index=offered.index(candidate) if candidate in offered else 0,
        key=f"draft-candidate-{name}",
        help="Versions of the same model first, the newest on top.",
    )
    with three:
        strategy = st.segmented_control(
            "Strategy",
            list(Strategy),
            default=Strategy.CANARY,
            key="draft-strategy",
            required=True,
            format_func=words.strategy_words,
        )
    st.html(markup.text(views.strategy_help(str(strategy))))
    return view, ref, str(strategy)


def _form(ctx: Context, endpoint: EndpointView, ref: str, strategy: str) -> None:
    left, right = shell.split([1.4, 1])
    with left:
        with st.container(border=True, key="draft-plan"):
            plan_form = _plan(strategy)
        with st.container(border=True, key="draft-guardrails"):
            patches = rollout_guardrails.draw(strategy)
    with right, st.container(border=True, key="draft-differences"):
        _differences(ctx, endpoint.version_ref, ref)
    reason = waiver.draw(versions.get(ctx, ref), key="draft")
    wish = {**plan_form, **_more(), "guardrails": patches or None, "waiver": reason}
    plan = _checked(wish)
    if plan is not None:
        with st.container(border=True, key="draft-steps"):
            wish["approval"] = _approvals(plan.steps, strategy)
    place = st.container(border=True, key="draft-prediction")
    _buttons(endpoint, ref, wish, ready=plan is not None)
    with place:  # drawn last, above the buttons: nobody waits for it to start a rollout
        if plan is not None:
            rollout_prediction.draw(ctx, endpoint.name, wish)


def _plan(strategy: str) -> dict[str, Any]:
    """Steps as keyword arguments of `rollouts.start`."""
    st.html(markup.card_title("Steps"))
    wish: dict[str, Any] = {"strategy": strategy}
    if strategy == Strategy.CANARY:
        text = st.text_input(
            "Share of requests at each step, %",
            value=views.DEFAULT_WEIGHTS_TEXT,
            key="draft-weights",
            help="Ascending. A last step of 100 % is added where it lacks.",
        )
        wish["weights"] = partial(views.parse_weights, text or "")
    one, two, three = st.columns(3)
    wish["bake_s"] = one.number_input(
        "Bake per step, seconds",
        0.0,
        MAX_BAKE_S,
        DEFAULT_BAKE_S,
        step=30.0,
        format="%g",
        key="draft-bake",
        help="Least observed time at each step; gaps in the measurements do not count.",
    )
    wish["min_requests"] = two.number_input(
        "Least requests per step",
        0,
        10**9,
        DEFAULT_MIN_REQUESTS,
        step=50,
        key="draft-requests",
        help="Of the candidate, or copies compared.",
    )
    wish["mirror"] = _mirror(three, strategy)
    wish["auto_advance"] = st.toggle(
        "Go on by itself when every guardrail is safe",
        value=True,
        key="draft-auto",
        help="Off: a person promotes each step.",
    )
    return wish


def _mirror(place: Any, strategy: str) -> float | None:
    """Share copied before any answer counts; None for no such step."""
    shadow = strategy == Strategy.SHADOW
    percent = place.number_input(
        "Copied, %" if shadow else "Copied in a first step, %",
        1.0 if shadow else 0.0,
        100.0,
        DEFAULT_MIRROR * 100 if shadow else 0.0,
        step=5.0,
        format="%g",
        key=f"draft-mirror-{strategy}",
        help="Copies go to the candidate, its answers are compared and thrown away. 0: no such step.",
    )
    return percent / 100 if percent else None


def _approvals(steps: Sequence[Step], strategy: str) -> tuple[bool, ...] | bool:
    titles = views.step_titles(steps)
    st.html(rollout_markup.stacked(markup.card_title("Plan"), rollout_markup.strip(views.preview(steps))))
    if not titles:
        return False
    chosen = st.multiselect(
        "A person approves before it goes on from",
        titles,
        key=f"draft-approvals-{strategy}-{len(steps)}",
        placeholder="no step",
    )
    return views.approvals(steps, chosen)


def _more() -> dict[str, Any]:
    """What needs a reason, or takes another rollout's place."""
    with st.expander("Gates, freeze windows, another rollout in progress", key="draft-exceptions"):
        gates = st.text_input(
            "Leave the gates out, because",
            key="draft-skip-gates",
            placeholder="empty: the gates run",
            help="A second person has to agree.",
        )
        freeze = st.text_input(
            "Break a freeze window, because",
            key="draft-break-freeze",
            placeholder="empty: a freeze holds it",
            help="A second person has to agree.",
        )
        supersede = st.toggle("Take the place of a rollout in progress", key="draft-supersede")
    return {"skip_gates": gates or None, "break_freeze": freeze or None, "supersede": supersede}


def _checked(wish: dict[str, Any]) -> Plan | None:
    """The plan that comes of *wish*, whose weights are parsed on the way; an error card and None for none."""
    try:
        if "weights" in wish:
            wish["weights"] = wish["weights"]()
        asked = {name: value for name, value in wish.items() if name not in NOT_OF_THE_PLAN}
        return rollout_plans.build(rollout_plans.PlanWish(**asked), warm_s=0.0)
    except SignalboxError as error:
        st.html(markup.problem(error.message, error.next_step, warn=True))
        return None


def _differences(ctx: Context, stable: str, candidate: str) -> None:
    st.html(
        markup.card_title("What changes")
        + markup.table(views.difference_rows(versions.get(ctx, stable), versions.get(ctx, candidate)))
    )
    links.page(
        "versions",
        "Compare files and tensors",
        key="draft-compare",
        icon=":material/compare_arrows:",
        compare=f"{stable},{candidate}",
    )


def _buttons(endpoint: EndpointView, ref: str, wish: dict[str, Any], *, ready: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="draft-go"):
        label = f"Start: {endpoint.version_ref} → {ref}"
        begun = actions.pressed(label, "rollout-start", icon=":material/alt_route:", disabled=not ready)
        st.button("Cancel", key="draft-cancel", on_click=_leave)
    if begun and ready:
        _start(endpoint, ref, wish)
        st.rerun()


def _start(endpoint: EndpointView, ref: str, wish: dict[str, Any]) -> None:
    """Start it and go to its page."""
    ctx = current.context()
    started: list[str] = []
    actions.act(
        lambda: started.append(
            rollouts.start(
                ctx, endpoint.name, ref, actor=actions.ACTOR, expected_revision=endpoint.revision, **wish
            ).id
        ),
        f"Rolling out {ref} to {endpoint.name}",
        then={"new": None, "candidate": None},
    )
    if started:
        st.query_params["id"] = started[0]


def _leave() -> None:
    for name in ("new", "candidate"):
        st.query_params.pop(name, None)
