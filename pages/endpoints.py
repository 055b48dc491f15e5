"""Endpoints: list, deploy form (`?deploy=model@N`) and the detail of one (`?name=`, `?tab=`)."""

import streamlit as st

from control_plane.services import endpoints
from control_plane.ui import current
from pages._ui import deploy_form, endpoint_cards, endpoint_detail, links, shell
from pages._ui.guard import refreshing

RATE_RANGE_S = 300


@refreshing(2.0)
def listing() -> None:
    ctx = current.context()
    found = endpoints.list_all(ctx)
    if not found:
        shell.empty("No endpoint yet", "Press Deploy to put a version behind a stable address.")
    endpoint_cards.rows(found, shell.bundle(ctx, RATE_RANGE_S))


def show_form() -> None:
    st.query_params["deploy"] = "new"


def main() -> None:
    links.follow("name", "deploy")
    name = shell.param("name")
    if name:
        endpoint_detail.draw(name)
        return
    ctx = shell.title(
        "Endpoints",
        "The stable names that clients call; what stands behind them can change without a failed request.",
    )
    wanted = shell.param("deploy")
    if wanted:
        deploy_form.draw(ctx, wanted)
        return
    st.button(
        "Deploy",
        key="deploy",
        type="primary",
        icon=":material/rocket_launch:",
        shortcut="D",
        on_click=show_form,
    )
    listing()


main()
