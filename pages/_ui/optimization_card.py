"""The result card: a variant beside its parent, and what may be done with it."""

from __future__ import annotations

from typing import Final

import streamlit as st

from control_plane.domain.views import VersionDetail
from control_plane.errors import NotFoundError
from control_plane.services import versions
from control_plane.services.context import Context
from control_plane.ui.viewmodels import optimization as words
from control_plane.ui.viewmodels import optimization_result as views
from control_plane.ui.viewmodels import provenance
from control_plane.ui.viewmodels.badges import Badge
from control_plane.ui.viewmodels.optimization_result import Result
from pages._ui import links, markup, optimization_markup

WAIVER: Final = (
    "It stays as a version with its numbers. Deploying it or rolling it out asks for a reason, which is kept."
)
_ROUGH: Final = Badge("◐", "Measured roughly", "busy")


def draw(result: Result) -> None:
    """The whole card but for its buttons."""
    _verdict(result)
    with st.container(key="optimization-figures"):
        st.html(markup.figures(views.figures(result.report)))
    details(result)


def _verdict(result: Result) -> None:
    decision = result.decision
    if decision is None:
        st.html(
            optimization_markup.verdict(
                _ROUGH, ["Few rounds and rows so far: no decision yet."], result.title
            )
        )
        return
    badge = words.decision_badge(accepted=decision.accepted)
    st.html(optimization_markup.verdict(badge, words.reasons(decision), result.title))
    if not decision.accepted and result.version:
        st.html(markup.text(WAIVER))


def details(result: Result) -> None:
    """Speed, footprint, answers, where it comes from and what it was measured on."""
    report = result.report
    with st.container(border=True, key="optimization-speed"):
        st.html(
            markup.card_title("Speed")
            + markup.text(views.measured_words(report))
            + optimization_markup.speeds(views.speeds(report))
        )
    with st.container(border=True, key="optimization-footprint"):
        st.html(
            markup.card_title("Size, load and memory")
            + markup.table(views.footprint_rows(result))
            + "".join(markup.text(note) for note in views.note_words(report))
        )
    with st.container(border=True, key="optimization-answers"):
        st.html(
            markup.card_title("Answers", note="the variant's beside its parent's, to the same rows")
            + markup.facts(views.answer_rows(report.answers))
        )
    with st.expander("Where it comes from, machine and libraries", key="optimization-origin"):
        st.html(markup.facts(views.lineage_rows(result) + views.machine_rows(report)))


def buttons(ctx: Context, result: Result) -> None:
    """Open, deploy, roll out against the parent's endpoint, compare: for a variant that is a version."""
    version = _found(ctx, result.version)
    if version is None:
        return
    parent = _found(ctx, result.parent)
    with st.container(horizontal=True, key="optimization-actions"):
        links.page(
            "versions",
            f"Open {version.ref}",
            key="variant-open",
            icon=":material/inventory_2:",
            id=version.ref,
        )
        if version.archived_at is None and not provenance.refused(version.decision):
            _serve(version, parent)
        if parent is not None:
            links.page(
                "versions",
                "Compare",
                key="variant-compare",
                icon=":material/compare_arrows:",
                compare=f"{parent.ref},{version.ref}",
            )


def _serve(version: VersionDetail, parent: VersionDetail | None) -> None:
    links.page(
        "endpoints", "Deploy", key="variant-deploy", icon=":material/rocket_launch:", deploy=version.ref
    )
    endpoint = views.served_at(parent.served_by, version.served_by) if parent else None
    if endpoint:
        links.page(
            "rollouts",
            f"Roll out at {endpoint}",
            key="variant-roll-out",
            icon=":material/alt_route:",
            new=endpoint,
            candidate=version.ref,
        )


def _found(ctx: Context, ref: str | None) -> VersionDetail | None:
    """The version, unless it was deleted since."""
    try:
        return versions.get(ctx, ref) if ref else None
    except NotFoundError:
        return None
