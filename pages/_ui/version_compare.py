"""Two versions side by side: metadata, configuration, files, and tensors once a job has read them."""

from __future__ import annotations

import streamlit as st

from control_plane.domain.comparison import Comparison
from control_plane.domain.views import VersionDetail
from control_plane.errors import InvalidInputError
from control_plane.services import comparison, jobs, versions
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.viewmodels import comparison as views
from pages._ui import actions, links, markup, shell
from pages._ui.guard import refreshing

OFFERED = 200


def draw(pair: str) -> None:
    """Draw the comparison that the address names: `?compare=digits@1,digits@2`."""
    a, comma, b = pair.partition(",")
    ctx = current.context()
    links.page("versions", "All versions", key="back", icon=":material/arrow_back:")
    actions.show_notices()
    if not (a and comma and b):
        raise InvalidInputError(
            "The address names no two versions", next_step="Write ?compare=digits@1,digits@2."
        )
    found = comparison.compare(ctx, a, b)
    st.title(f"{found.a} and {found.b}", anchor=False)
    if found.identical:
        st.html(markup.lead("Both serve the same files: they differ in what is said of them alone."))
    with st.container(horizontal=True, key="sides"):
        for ref in dict.fromkeys((found.a, found.b)):
            links.page("versions", f"Open {ref}", key=f"side-{ref}", id=ref)
    everything = st.toggle("Show what is the same too", key="everything")
    _metadata(found, everything=everything)
    _configuration(found)
    _weights(found, everything=everything)


def choose(ctx: Context, version: VersionDetail) -> None:
    """A choice of another version to set beside *version*."""
    others = [
        each.ref
        for each in versions.search(ctx, model=version.model, page_size=OFFERED).items
        if each.ref != version.ref
    ]
    with st.container(border=True, key="compare-with"):
        st.html(markup.card_title("Compare"))
        if not others:
            st.html(markup.text("There is no other version of this model."))
            return
        other = st.selectbox("With", others, key="compare-other")
        links.page(
            "versions",
            "Compare",
            key="compare-go",
            icon=":material/compare_arrows:",
            compare=f"{version.ref},{other}",
        )


def _metadata(found: Comparison, *, everything: bool) -> None:
    rows = views.metadata_rows(found, shell.zone(), everything=everything)
    with st.container(border=True, key="compare-metadata"):
        st.html(markup.card_title("Metadata") + (markup.table(rows) or markup.text("All the same.")))


def _configuration(found: Comparison) -> None:
    with st.container(border=True, key="compare-files"):
        st.html(markup.card_title("Files"))
        rows = views.file_rows(found)
        st.html(markup.table(rows, mono=("File", found.a, found.b)) or markup.text("All the same."))
        for name, changes in found.config.items():
            st.html(markup.card_title(name, note="keys that differ"))
            st.html(markup.table(views.change_rows(found, changes), mono=("Key",)))


def _weights(found: Comparison, *, everything: bool) -> None:
    weights = found.weights
    with st.container(border=True, key="compare-weights"):
        st.html(markup.card_title("Weights"))
        if weights.state == "ready":
            _tensors(found, everything=everything)
        elif weights.state == "running" and weights.job_id:
            _watch(weights.job_id)
        else:
            st.html(markup.text(f"{weights.sentence}."))
            if weights.state != "none":
                st.button(
                    "Compare weights",
                    key="compare-start",
                    type="primary",
                    icon=":material/compare_arrows:",
                    on_click=_start,
                    args=(found.a, found.b),
                )


def _tensors(found: Comparison, *, everything: bool) -> None:
    st.html(markup.text(views.summary(found, found.weights)))
    rows = views.tensor_rows(found, everything=everything)
    if rows:
        st.dataframe(rows, hide_index=True, key="tensors", row_height=32, alt="Tensors by name")


@refreshing(0.7)
def _watch(job_id: str) -> None:
    """Follow the job; the page draws itself again when it is over."""
    job = jobs.get(current.context(), job_id)
    if job.finished_at is not None:
        st.rerun(scope="app")
    st.progress(job.progress, text=f"{job.stage or job.state} {job.progress:.0%}")


def _start(a: str, b: str) -> None:
    ctx = current.context()
    actions.act(lambda: comparison.start(ctx, a, b, actor=actions.ACTOR), "The weights are being compared")
