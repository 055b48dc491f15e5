"""One version: what it is, what it takes and gives, where it serves, and what may be done with it."""

from __future__ import annotations

import time
from functools import partial

import streamlit as st

from control_plane.domain.views import VersionDetail, VersionView
from control_plane.services import events, versions
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.viewmodels import activity, optimization, provenance, quantities
from control_plane.ui.viewmodels import versions as views
from control_plane.ui.viewmodels.badges import Badge, archived
from pages._ui import (
    actions,
    links,
    markup,
    rollout_banner,
    shell,
    version_compare,
    version_provenance,
    version_variant,
)
from serving_agent.contract.signature import TensorSpec


def actions_bar(version: VersionView, *, detail: bool = False) -> None:
    """What may be done with *version*; confirmations name it with its digest."""
    named = f"**{version.ref}** (`{quantities.digest(version.digest)}`)"
    with st.container(horizontal=True, vertical_alignment="center", key=f"actions-{version.id}"):
        if not detail:
            st.markdown(named)
            links.page("versions", "Open", key="version-open", icon=":material/open_in_new:", id=version.ref)
        links.page(
            "endpoints",
            "Deploy",
            key="version-deploy",
            icon=":material/rocket_launch:",
            disabled=version.archived_at is not None or provenance.refused(version.decision),
            deploy=version.ref,
        )
        links.page(
            "rollouts",
            "Roll out",
            key="version-roll-out",
            icon=":material/alt_route:",
            disabled=version.archived_at is not None or provenance.refused(version.decision),
            new=rollout_banner.suited(version),
            candidate=version.ref,
        )
        links.page(
            "optimization",
            "Optimise",
            key="version-optimise",
            icon=":material/speed:",
            disabled=version.archived_at is not None or provenance.refused(version.decision),
            version=version.ref,
        )
        links.page(
            "debugger",
            "Debug",
            key="version-debug",
            icon=":material/bug_report:",
            disabled=version.archived_at is not None or provenance.refused(version.decision),
            a=version.ref,
        )
        links.page(
            "profiling",
            "Profile",
            key="version-profile",
            icon=":material/local_fire_department:",
            disabled=version.archived_at is not None or provenance.refused(version.decision),
            version=version.ref,
        )
        if version.archived_at is None:
            st.button(
                "Archive", key="archive", icon=":material/archive:", on_click=_archive, args=(version.ref,)
            )
        else:
            st.button(
                "Restore", key="restore", icon=":material/unarchive:", on_click=_restore, args=(version.ref,)
            )
        actions.confirm(
            "Delete",
            f"{named} and its files go for good. Its number is never used again.",
            partial(_delete, version.ref),
            "version-delete",
            icon=":material/delete:",
        )


def _archive(ref: str) -> None:
    ctx = current.context()
    actions.act(lambda: versions.archive(ctx, ref, actor=actions.ACTOR), f"{ref} is archived")


def _restore(ref: str) -> None:
    ctx = current.context()
    actions.act(lambda: versions.restore(ctx, ref, actor=actions.ACTOR), f"{ref} is restored")


def _delete(ref: str) -> None:
    ctx = current.context()
    actions.act(
        lambda: versions.delete(ctx, ref, actor=actions.ACTOR), f"{ref} is deleted", then={"id": None}
    )


def draw(ref: str) -> None:
    """Draw the page of one version."""
    ctx = current.context()
    links.page("versions", "All versions", key="back", icon=":material/arrow_back:")
    actions.show_notices()
    version = versions.get(ctx, ref)
    marks = [archived()] if version.archived_at is not None else []
    if provenance.refused(version.decision):
        marks.append(provenance.decision_badge(version.decision))
    variant = optimization.variant_badge(version.method, accepted=version.accepted)
    marks += [variant] if variant else []
    marks += [Badge("◆", alias, "busy") for alias in version.aliases]
    st.html(markup.version_head(version.ref, marks, views.signature_words(version.signature)))
    actions_bar(version, detail=True)
    left, right = shell.split([1.25, 1])
    with left:
        _facts(version)
        _signature(version)
        version_variant.draw(ctx, version)
        version_provenance.files(version)
        version_provenance.descent(ctx, version)
        version_provenance.evidence(version)
    with right:
        version_provenance.verdict(version)
        _serving(version)
        _details(version)
        _labels(ctx, version)
        version_compare.choose(ctx, version)
        _history(ctx, version)


def _facts(version: VersionDetail) -> None:
    with st.container(border=True, key="facts"):
        st.html(markup.facts(views.facts(version, shell.zone(), time.time())))


def _signature(version: VersionDetail) -> None:
    with st.container(border=True, key="signature"):
        _side("Inputs", version.signature.inputs)
        _side("Outputs", version.signature.outputs)
        if version.labels:
            words = quantities.count(len(version.labels), "class label")
            st.html(markup.text(f"{words}: {', '.join(version.labels[:20])}"))


def _side(title: str, specs: tuple[TensorSpec, ...]) -> None:
    st.html(markup.card_title(title) + markup.table(views.tensor_rows(specs), mono=("Name", "Type", "Shape")))


def _serving(version: VersionDetail) -> None:
    with st.container(border=True, key="serving"):
        st.html(markup.card_title("Served by"))
        if not version.served_by:
            st.html(markup.text("No endpoint serves this version."))
        for name in version.served_by:
            links.page("endpoints", name, key=f"served-{name}", icon=":material/hub:", name=name)


def _details(version: VersionDetail) -> None:
    rows = views.detail_rows(version.details)
    if rows:
        with st.container(border=True, key="details"):
            st.html(markup.card_title("Metadata") + markup.facts(rows))


def _labels(ctx: Context, version: VersionDetail) -> None:
    """Aliases and tags: the two things about a version that may change."""
    with st.container(border=True, key="aliases-and-tags"):
        st.html(markup.card_title("Aliases and tags"))
        for alias in version.aliases:
            protected = alias in ctx.settings.protected_aliases
            st.button(
                f"◆ {alias}",
                key=f"alias-{alias}",
                icon=":material/lock:" if protected else ":material/close:",
                help="Protected: only a rollout moves it" if protected else "Remove this alias",
                disabled=protected,
                on_click=_remove_alias,
                args=(version, alias),
            )
        for tag, words in zip(sorted(version.tags), views.tag_words(version.tags), strict=True):
            st.button(
                words,
                key=f"tag-{tag}",
                icon=":material/close:",
                help="Remove this tag",
                on_click=_remove_tag,
                args=(version, tag),
            )
        with st.form("alias-form", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
            st.text_input(
                "Alias", key="new-alias", placeholder="champion", help="Moves here if another version has it."
            )
            st.form_submit_button("Set alias", key="set-alias", on_click=_set_alias, args=(version,))
        with st.form("tag-form", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
            st.text_input("Tag", key="new-tag", placeholder="stage=candidate", help="key or key=value")
            st.form_submit_button("Set tag", key="set-tag", on_click=_set_tag, args=(version,))


def _set_alias(version: VersionDetail) -> None:
    ctx, alias = current.context(), str(st.session_state["new-alias"]).strip()
    actions.act(
        lambda: versions.set_alias(ctx, version.model, alias, version.number, actor=actions.ACTOR),
        f"{alias} points at {version.ref}",
    )


def _remove_alias(version: VersionDetail, alias: str) -> None:
    ctx = current.context()
    actions.act(
        lambda: versions.remove_alias(ctx, version.model, alias, actor=actions.ACTOR),
        f"Alias {alias} removed",
    )


def _set_tag(version: VersionDetail) -> None:
    ctx = current.context()
    key, _, value = str(st.session_state["new-tag"]).partition("=")
    actions.act(
        lambda: versions.set_tag(ctx, version.ref, key.strip(), value.strip(), actor=actions.ACTOR),
        f"Tag {key.strip()} set",
    )


def _remove_tag(version: VersionDetail, key: str) -> None:
    ctx = current.context()
    actions.act(lambda: versions.remove_tag(ctx, version.ref, key, actor=actions.ACTOR), f"Tag {key} removed")


def _history(ctx: Context, version: VersionDetail) -> None:
    found = events.search(ctx, subject=version.ref, page_size=20)
    with st.container(border=True, key="version-events"):
        st.html(markup.card_title("Events"))
        shown = activity.rows(found.items, shell.zone())
        st.html(
            markup.table(
                [{k: row[k] for k in ("When", "Who", "What")} for row in shown], tight=("When", "Who")
            )
            or markup.text("None yet.")
        )
