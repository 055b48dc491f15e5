"""One endpoint: overview with controls, playground, agents, metrics, client code and events."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

import streamlit as st

from control_plane.domain.views import AgentView, EndpointView
from control_plane.services import endpoints, versions
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.components.live_charts import live_charts
from control_plane.ui.viewmodels import activity, badges, live
from control_plane.ui.viewmodels import endpoints as views
from pages._ui import actions, client_code, deploy_form, links, markup, playground, rollout_banner, shell
from pages._ui.guard import refreshing

TABS: Final = ("Overview", "Playground", "Agents", "Metrics", "Use it", "Events")
OFFERED: Final = 200


def draw(name: str) -> None:
    """Draw the endpoint *name* with the tab that the address names."""
    ctx = current.context()
    links.page("endpoints", "All endpoints", key="back", icon=":material/arrow_back:")
    actions.show_notices()
    endpoints.get(ctx, name)
    _headline(name)
    tabs = st.tabs(list(TABS), key="tab", on_change="rerun", bind="query-params")
    parts = (_overview, playground.draw, _agents, _metrics, client_code.draw, _events)
    for tab, part in zip(tabs, parts, strict=True):
        if tab.open:
            with tab:
                part(ctx, name)


@refreshing(1.0)
def _headline(name: str) -> None:
    view = endpoints.get(current.context(), name)
    st.html(markup.headline(view.name, view.health, views.version_words(view), view.sentence))
    rollout_banner.draw(name)
    for warning in view.warnings:
        st.html(markup.problem(warning, "Its agents go on; deploy another version.", warn=True))
    agent = (
        None if shell.param("tab") in (None, TABS[0]) else views.shown_strip(view)
    )  # Overview has it below
    if agent is not None and (agent.phase != "ready" or view.health not in {"ready", "degraded"}):
        st.html(markup.steps(views.steps(agent, time.time())))
    failure = views.latest_failure(view)
    if failure is not None:
        _failure(failure)


def _failure(agent: AgentView) -> None:
    st.html(
        markup.problem(
            f"Agent {agent.id} failed: {agent.reason or 'its process ended'}",
            "Its last log lines are below. Correct the cause and press Restart, or deploy another version.",
            agent.log_tail,
        )
    )


def _overview(ctx: Context, name: str) -> None:
    view = endpoints.get(ctx, name)
    left, right = shell.split([1.35, 1])
    with left:
        _agents_now(name)
        _address(view)
    with right:
        with st.container(border=True, key="controls"):
            _controls(view)
            rollout_banner.start(view)
        with st.container(border=True, key="settings"):
            st.html(markup.card_title("Serving settings"))
            st.html(markup.facts(views.setting_rows(view)))
    _redeploy(ctx, view)


@refreshing(1.0)
def _agents_now(name: str) -> None:
    view = endpoints.get(current.context(), name)
    with st.container(border=True, key="agents-now"):
        st.html(markup.card_title("Agents", note=views.replica_words(view)))
        agents = [agent for agent in view.agents if agent.phase != "failed"]
        if not agents:
            st.html(markup.text("No agent is running."))
        for agent in agents[:8]:
            st.html(_agent(agent, time.time()))


def _agent(agent: AgentView, now: float) -> str:
    took = views.time_to_ready(agent)
    line = markup.agent_line(
        agent.id,
        agent.phase,
        agent.version_ref,
        f"ready in {took}" if took else "",
        badges.check(agent.check.state) if agent.ready_at else None,
    )
    notes = "".join(markup.text(note) for note in views.agent_notes(agent, now))
    return line + markup.steps(views.steps(agent, now)) + notes


def _address(view: EndpointView) -> None:
    with st.container(border=True, key="address"):
        st.html(markup.card_title("Address", note="stays the same over every deployment"))
        st.code(f"{view.url}/predict", language=None)


def _controls(view: EndpointView) -> None:
    able = views.verbs(view)
    st.html(markup.card_title("Controls"))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.number_input(
            "Replicas", 1, 64, view.replicas, key=f"scale-{view.revision}", width=130, disabled=not able.scale
        )
        st.button("Scale", key="scale-go", on_click=_scale, args=(view,), disabled=not able.scale)
    with st.container(horizontal=True):
        st.button(
            "Restart",
            key="restart",
            icon=":material/restart_alt:",
            disabled=not able.restart,
            on_click=partial(_do, view, "restart"),
        )
        if able.start:
            st.button(
                "Start",
                key="start",
                icon=":material/play_arrow:",
                type="primary",
                on_click=partial(_do, view, "start"),
            )
        else:
            actions.confirm(
                "Stop",
                f"Clients of **{view.name}** get an error (503) until it is started again. "
                f"It serves `{view.serving_ref or view.version_ref}` now.",
                partial(_do, view, "stop"),
                "stop",
                icon=":material/stop_circle:",
                disabled=not able.stop,
            )
        actions.confirm(
            "Delete",
            f"The address of **{view.name}** goes away with all its agents; it serves "
            f"`{view.serving_ref or view.version_ref}` now. The versions stay.",
            partial(_delete, view),
            "delete",
            icon=":material/delete:",
            disabled=not able.delete,
        )


def _scale(view: EndpointView) -> None:
    replicas = int(st.session_state[f"scale-{view.revision}"])
    ctx = current.context()
    actions.act(
        lambda: endpoints.scale(
            ctx, view.name, replicas, actor=actions.ACTOR, expected_revision=view.revision
        ),
        f"Scaling {view.name} to {replicas}",
    )


def _do(view: EndpointView, verb: str) -> None:
    call = {"restart": endpoints.restart, "start": endpoints.start, "stop": endpoints.stop}[verb]
    words = {"restart": "Restarting", "start": "Starting", "stop": "Stopping"}[verb]
    ctx = current.context()
    actions.act(
        lambda: call(ctx, view.name, actor=actions.ACTOR, expected_revision=view.revision),
        f"{words} {view.name}",
    )


def _delete(view: EndpointView) -> None:
    ctx = current.context()
    actions.act(
        lambda: endpoints.delete(ctx, view.name, actor=actions.ACTOR, expected_revision=view.revision),
        f"Deleting {view.name}",
        then={"name": None, "tab": None},
    )


def _redeploy(ctx: Context, view: EndpointView) -> None:
    model = view.version_ref.partition("@")[0]
    refs = [each.ref for each in versions.search(ctx, model=model, page_size=OFFERED).items]
    if view.version_ref not in refs:
        refs.append(view.version_ref)
    with st.container(border=True, key="redeploy"):
        st.html(
            markup.card_title("Deploy another version or change settings")
            + markup.text("The new agents are ready before the old ones go: no request fails.")
        )
        ref = st.selectbox(
            "Version", refs, index=refs.index(view.version_ref), key=f"redeploy-version-{view.revision}"
        )
        key = f"redeploy-{view.revision}"
        deploy_form.settings(ctx, versions.get(ctx, ref), key=key, present=view)
        if actions.pressed("Deploy", "redeploy-go", icon=":material/rocket_launch:"):
            deploy_form.deploy(view.name, ref, view.revision, key)
            st.rerun()


@refreshing(2.0)
def _agent_table(name: str) -> None:
    found = endpoints.agents(current.context(), endpoint=name, limit=50)
    if not found:
        shell.empty("No agent yet", "Agents appear here when the controller starts them.")
        return
    st.html(markup.agent_table(views.agent_rows(found, time.time())))


def _agents(ctx: Context, name: str) -> None:
    _agent_table(name)
    ids = [agent.id for agent in endpoints.agents(ctx, endpoint=name, limit=50)]
    if ids:
        st.selectbox("Log of agent", ids, key="agent", bind="query-params", width=260)
        _agent_log()


@refreshing(2.0)
def _agent_log() -> None:
    chosen = st.session_state.get("agent")
    if chosen:
        st.html(markup.log(endpoints.agent_log(current.context(), str(chosen), lines=200)))


def _metrics(ctx: Context, name: str) -> None:  # noqa: ARG001  every tab takes the same
    word = st.segmented_control(
        "Range",
        list(live.RANGES),
        default=live.DEFAULT_RANGE,
        key="range",
        bind="query-params",
        required=True,
        label_visibility="collapsed",
    )
    live_charts(range_s=live.range_seconds(word), endpoint=name, paused=False, key="endpoint-charts")


@refreshing(5.0)
def _events_now(name: str) -> None:
    found = endpoints.history(current.context(), name)
    st.html(markup.table(activity.rows(found.items, shell.zone()), tight=("When", "Who"), mono=("Action",)))


def _events(ctx: Context, name: str) -> None:  # noqa: ARG001  every tab takes the same
    _events_now(name)
