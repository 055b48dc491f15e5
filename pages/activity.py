"""Activity: who did what to what, filtered and paged (`?q=`), with CSV."""

from collections.abc import Iterator

import streamlit as st

from control_plane.domain.views import EventView
from control_plane.services import events
from control_plane.services.context import Context
from control_plane.ui.viewmodels import activity as views
from control_plane.ui.viewmodels import quantities
from pages._ui import markup, paging, shell

PAGE_SIZE = 50
CSV_PAGES = 25
MOST_A_PAGE = 200


def matching(ctx: Context, q: str) -> Iterator[EventView]:
    for page in range(1, CSV_PAGES + 1):
        found = events.search(ctx, q=q, page=page, page_size=MOST_A_PAGE).items
        yield from found
        if len(found) < MOST_A_PAGE:
            return


def main() -> None:
    ctx = shell.title(
        "Activity", "Every change with its author, in the order it happened. Records are only ever added."
    )
    search, download = st.columns([4, 1], vertical_alignment="bottom")
    q = search.text_input(
        "Search",
        key="q",
        bind="query-params",
        placeholder="name, person, action",
        icon=":material/search:",
        live=True,
        on_change=paging.first_page,
    )
    found = events.search(ctx, q=q or "", page=paging.current_page(), page_size=PAGE_SIZE)
    download.download_button(
        "CSV",
        lambda: views.as_csv(matching(ctx, q or "")),
        "signalbox-activity.csv",
        "text/csv",
        key="csv",
        icon=":material/download:",
        help=f"The latest {CSV_PAGES * MOST_A_PAGE:,} matching records, times in UTC.",
        on_click="ignore",
        width="stretch",
    )
    if not found.items:
        shell.empty(
            "Nothing matches" if q else "Nothing happened yet",
            "Uploads, deployments and failures appear here.",
        )
        return
    with st.container(border=True, key="events"):
        st.html(
            markup.table(
                views.rows(found.items, shell.zone()), tight=("When", "Who"), mono=("Action", "Subject")
            )
        )
    paging.draw(found, quantities.count(found.total, "record"))


main()
