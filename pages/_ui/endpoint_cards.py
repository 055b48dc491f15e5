"""Endpoints as rows: health, version, agents, traffic and a link to the detail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from control_plane.domain.views import EndpointView
from control_plane.ui.viewmodels import endpoints, overview
from pages._ui import links, markup


def rows(found: Sequence[EndpointView], bundle: Mapping[str, Any]) -> None:
    """One bordered row an endpoint."""
    for view in found:
        _row(view, overview.traffic(bundle, view.name))


def _row(view: EndpointView, traffic: overview.Traffic) -> None:
    with st.container(border=True, key=f"endpoint-{view.name}"):
        words, action = links.row()
        words.html(
            markup.card_title(view.name, view.health, note=endpoints.version_words(view))
            + markup.inline(
                (
                    ("agents", endpoints.replica_words(view)),
                    ("requests", traffic.requests),
                    ("p99", traffic.p99),
                    ("errors", traffic.errors),
                    ("address", view.url),
                )
            )
            + (markup.text(view.sentence) if view.health not in {"ready", "stopped"} else "")
        )
        with action:
            links.page("endpoints", "Open", key=f"open-{view.name}", name=view.name)
