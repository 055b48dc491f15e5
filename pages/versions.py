"""Versions: search and filters in the address, server-side pages of 50; detail with `?id=model@N`, two
of them side by side with `?compare=model@N,model@M`."""

import streamlit as st

from control_plane.domain.views import Page, VersionView
from control_plane.services import versions
from control_plane.services.context import Context
from control_plane.ui.viewmodels import quantities
from control_plane.ui.viewmodels import versions as views
from pages._ui import links, paging, shell, version_compare, version_detail

PAGE_SIZE = 50
ANY = "Any"


def filters(ctx: Context) -> tuple[str, str | None, str | None, bool]:
    search, model, fmt, archived = st.columns([2.2, 1.3, 1.3, 1], vertical_alignment="bottom")
    q = search.text_input(
        "Search",
        key="q",
        bind="query-params",
        placeholder="model, digest, tag, creator",
        icon=":material/search:",
        live=True,
        on_change=paging.first_page,
    )
    names = [ANY, *(each.name for each in versions.models(ctx, page_size=200).items)]
    chosen = model.selectbox("Model", names, key="model", bind="query-params", on_change=paging.first_page)
    formats = [ANY, *versions.formats_in_use(ctx)]
    kind = fmt.selectbox(
        "Format",
        formats,
        key="fmt",
        bind="query-params",
        on_change=paging.first_page,
        format_func=lambda name: name if name == ANY else views.format_words(name),
    )
    old = archived.toggle("Archived", key="archived", bind="query-params", on_change=paging.first_page)
    return q or "", None if chosen == ANY else chosen, None if kind == ANY else kind, old


def listing(found: Page[VersionView], filter_key: str, *, archived: bool) -> None:
    event = st.dataframe(
        views.rows(found.items, shell.zone()),
        column_order=None if archived else views.COLUMNS,
        key=f"versions-{filter_key}-{found.page}",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        row_height=32,
        height=min(643, 35 + 32 * len(found.items)),
        column_config={
            "Aliases": st.column_config.ListColumn(width="small"),
            "Digest": st.column_config.TextColumn(help="First 12 characters"),
        },
        alt="Versions, newest first",
    )
    rows = event["selection"]["rows"]
    if rows and rows[0] < len(found.items):
        version_detail.actions_bar(found.items[rows[0]])


def empty(ctx: Context) -> None:
    if versions.search(ctx, page_size=1, archived=True).total:
        shell.empty("No version matches", "Change the search or the filters.")
        return
    shell.empty("No version yet", "Upload a checkpoint, or load the example on the Overview page.")
    links.page("upload", "Upload", key="empty-upload", icon=":material/upload:")


def main() -> None:
    links.follow("compare", "id")
    pair = shell.param("compare")
    if pair:
        version_compare.draw(pair)
        return
    ref = shell.param("id")
    if ref:
        version_detail.draw(ref)
        return
    ctx = shell.title(
        "Versions", "Immutable, named by content; what serves, what could serve, and where it came from."
    )
    q, model, fmt, archived = filters(ctx)
    page = paging.current_page()
    found = versions.search(
        ctx, q=q, model=model, format=fmt, archived=archived, page=page, page_size=PAGE_SIZE
    )
    if not found.items and found.total:
        page = views.pages(found.total, PAGE_SIZE)
        found = versions.search(
            ctx, q=q, model=model, format=fmt, archived=archived, page=page, page_size=PAGE_SIZE
        )
    if not found.items:
        empty(ctx)
        return
    listing(found, f"{q}-{model}-{fmt}-{archived}", archived=archived)
    paging.draw(found, f"{quantities.count(found.total, 'version')} · select one to act on it")


main()
