"""Live: charts that update in place every 2 s (`?endpoint=`, `?range=`)."""

import streamlit as st

from control_plane.services import endpoints
from control_plane.services.context import Context
from control_plane.ui.components.live_charts import live_charts
from control_plane.ui.viewmodels import live
from pages._ui import markup, shell

ALL = "All endpoints"


def controls(ctx: Context) -> tuple[int, str | None, bool]:
    names = [ALL, *(view.name for view in endpoints.list_all(ctx))]
    with st.container(horizontal=True, vertical_alignment="top", key="live-controls"):
        chosen = st.selectbox("Endpoint", names, key="endpoint", bind="query-params", width=240)
        word = st.segmented_control(
            "Range",
            list(live.RANGES),
            default=live.DEFAULT_RANGE,
            key="range",
            bind="query-params",
            required=True,
        )
        paused = st.toggle("Pause", key="paused", help="Keep the charts as they are while you look.")
    return live.range_seconds(word), None if chosen in {None, ALL} else chosen, paused


def table(ctx: Context, range_s: int, endpoint: str | None) -> None:
    with st.expander("The same data as a table", key="live-table", on_change="rerun") as opened:
        if opened.open:
            rows = live.latest_rows(shell.bundle(ctx, range_s, endpoint))
            st.html(
                markup.table(rows) or markup.empty("No data in this range", "Send a request to an endpoint.")
            )


def main() -> None:
    ctx = shell.title(
        "Live",
        "What clients, agents and machines see, every 2 seconds. Drag to zoom, double-click to zoom out.",
    )
    range_s, endpoint, paused = controls(ctx)
    live_charts(range_s=range_s, endpoint=endpoint, paused=paused, key="live-charts")
    table(ctx, range_s, endpoint)


main()
