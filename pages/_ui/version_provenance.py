"""Where a version comes from: the gate's verdict, signature and files, evidence, tree of descent."""

from __future__ import annotations

import json

import streamlit as st

from control_plane.domain.views import VersionDetail
from control_plane.services import lineage, manifests, rejudging
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.viewmodels import provenance as views
from pages._ui import actions, links, markup, shell

MOST_RELATIVES = 8


def verdict(version: VersionDetail) -> None:
    """What the gate says of it, and what it left out."""
    with st.container(border=True, key="verdict"):
        st.html(markup.card_title("Gate", views.decision_badge(version.decision)))
        if views.refused(version.decision):
            next_step = str((version.verdict or {}).get("next_step") or "Deploy another version.")
            st.html(markup.problem(views.verdict_sentence(version), next_step))
        else:
            st.html(markup.text(views.verdict_sentence(version)))
        if version.verdict is not None:
            left_out = markup.table(views.left_out_rows(version.verdict), mono=("Left out",), tight=("Size",))
            st.html(markup.facts(views.verdict_rows(version)) + left_out)
        st.button(
            "Judge again",
            key="rejudge",
            icon=":material/gavel:",
            help="Has the present gate read the original upload again, without running it.",
            on_click=_rejudge,
            args=(version.ref,),
        )


def files(version: VersionDetail) -> None:
    """Its files with their hashes, and who vouches for them."""
    rows = views.file_rows(version.files)
    with st.container(border=True, key="files"):
        st.html(
            markup.card_title("Files") + markup.table(rows, mono=("File", "sha256"), tight=("File", "Size"))
        )
        with st.expander("Hashes to copy", key="hashes"):
            st.code(views.checksum_lines(version.files), language=None)
        _signature(version)


def _signature(version: VersionDetail) -> None:
    key_id = views.signer(version.manifest)
    if key_id is None:
        st.html(markup.text("Not signed yet: it is signed when Signalbox starts."))
        return
    st.html(markup.facts([("Signed by key", key_id)]))
    with st.container(horizontal=True, key="signed"):
        st.button(
            "Verify",
            key="verify",
            icon=":material/verified:",
            help="A job reads every file again and checks it against the signed manifest.",
            on_click=_verify,
            args=(version.ref,),
        )
        st.download_button(
            "Signed manifest",
            json.dumps(version.manifest, indent=2),
            file_name=f"{version.model}-{version.number}.intoto.json",
            mime="application/json",
            key="manifest",
            icon=":material/download:",
            on_click="ignore",
        )


def evidence(version: VersionDetail) -> None:
    """The sealed original, where it is not what is served."""
    if version.evidence_digest is None:
        return
    with st.container(border=True, key="evidence"):
        st.html(markup.card_title("Original upload", note="sealed: kept as evidence, never served"))
        st.html(markup.facts([("Digest", version.evidence_digest)]))
        rows = views.file_rows(version.evidence_files)
        st.html(markup.table(rows, mono=("File", "sha256"), tight=("Size",)))


def descent(ctx: Context, version: VersionDetail) -> None:
    """The tree of parents and children, and what the job that made it says of its source."""
    found = lineage.tree(ctx, version.ref)
    with st.container(border=True, key="lineage"):
        st.html(markup.card_title("Lineage") + markup.tree(views.tree_rows(found, shell.zone())))
        if not found.complete:
            st.html(markup.text("There are more relatives than are drawn."))
        with st.container(horizontal=True, key="relatives"):
            for ref in views.relatives(found, MOST_RELATIVES):
                links.page("versions", ref, key=f"relative-{ref}", id=ref)
        rows = views.source_rows(found.source)
        if rows:
            st.html(markup.card_title("Source") + markup.facts(rows))


def _rejudge(ref: str) -> None:
    ctx = current.context()
    actions.act(lambda: rejudging.queue(ctx, ref=ref, actor=actions.ACTOR), f"{ref} is being judged again")


def _verify(ref: str) -> None:
    ctx = current.context()
    actions.act(
        lambda: manifests.queue_check(ctx, ref, actor=actions.ACTOR),
        f"{ref} is being verified; its job tells the outcome",
    )
