"""Overview: what needs attention, key figures, endpoints and recent activity; first steps when empty."""

import time

import streamlit as st

from control_plane.domain.views import Attention, Status
from control_plane.services import endpoints, events, rollouts
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.viewmodels import overview, quantities
from control_plane.ui.viewmodels import rollouts as rollout_views
from pages._ui import endpoint_cards, example_job, links, markup, rollout_list, shell
from pages._ui.guard import refreshing

SPARK_RANGE_S = 300


def first_steps(ctx: Context, status: Status) -> None:
    st.subheader("Three steps to a prediction", anchor=False)
    columns = st.columns(3)
    for column, step in zip(columns, overview.first_steps(status), strict=True):
        with column.container(border=True, height="stretch", key=f"first-{step.number}"):
            st.html(markup.first_step(step))
            links.page(step.link, step.action, key=f"first-{step.number}", disabled=step.done)
    example_job.draw(ctx, status)


@refreshing(2.0)
def figures() -> None:
    ctx = current.context()
    st.html(markup.figures(overview.key_figures(shell.status(ctx), shell.bundle(ctx, SPARK_RANGE_S))))


def rollout_attention(ctx: Context) -> tuple[Attention, ...]:
    active = rollouts.list_all(ctx, states=rollout_views.ACTIVE_STATES).items
    gone_wrong = rollouts.list_all(ctx, states=rollout_views.BAD_ENDS, page_size=8).items
    return rollout_views.attention(active, gone_wrong, time.time())


@refreshing(2.0)
def attention() -> None:
    ctx = current.context()
    items = (*shell.status(ctx).attention, *rollout_attention(ctx))
    if not items:
        return
    st.subheader("Needs attention", anchor=False)
    with st.container(border=True, key="attention"):
        for i, item in enumerate(items[:8]):
            words, action = links.row()
            since = quantities.ago(item.at, time.time()) if item.at is not None else ""
            words.html(markup.attention(item.kind, overview.named(item), item.message, since))
            with action:
                links.to(item.link, "Open", key=f"attention-{i}")


@refreshing(2.0)
def rollouts_in_progress() -> None:
    found = rollouts.list_all(current.context(), states=rollout_views.ACTIVE_STATES, page_size=3)
    if found.items:
        st.subheader("Rollouts in progress", anchor=False)
        rollout_list.rows(found.items)


@refreshing(2.0)
def endpoint_list() -> None:
    ctx = current.context()
    found = endpoints.list_all(ctx)
    if not found:
        shell.empty("No endpoint yet", "Deploy a version on the Endpoints page.")
    endpoint_cards.rows(found, shell.bundle(ctx, SPARK_RANGE_S))


@refreshing(5.0)
def activity() -> None:
    found = events.search(current.context(), page_size=8)
    st.html(markup.activity([(quantities.short_clock(e.at, shell.zone()), e.message) for e in found.items]))


def main() -> None:
    ctx = shell.title("Overview", "Every model in service, and what needs a hand.")
    status = shell.status(ctx)
    if status.endpoints:
        figures()
    attention()
    if not status.endpoints:
        first_steps(ctx, status)
    left, right = shell.split([1.9, 1])
    with left:
        rollouts_in_progress()
        st.subheader("Endpoints", anchor=False)
        endpoint_list()
    with right:
        st.subheader("Recent activity", anchor=False)
        activity()


main()
