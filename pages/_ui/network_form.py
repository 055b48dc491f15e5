"""Asks for the network of bare weights: a listed class with arguments, or a config.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from control_plane.ui.viewmodels import networks
from pages._ui import markup


def draw(listed: Sequence[str], key: str) -> None:
    """Draw the questions; widgets are named `<key>-<part>`."""
    st.html(
        markup.card_title("Which network do these weights belong to?")
        + markup.text(
            "Weights alone do not say. Names and shapes of all tensors are compared with the network's, "
            "and it answers once, before the version exists."
        )
    )
    way = st.segmented_control(
        "Network",
        list(networks.WAYS),
        default="class" if listed else "config",
        format_func=lambda each: networks.WAYS[each],
        key=f"{key}-way",
        label_visibility="collapsed",
        required=True,
    )
    if way == "config":
        st.text_area("config.json", key=f"{key}-config", height=180, placeholder='{"architectures": […], …}')
    elif not listed:
        st.html(markup.problem(*networks.NONE_LISTED, warn=True))
    else:
        st.selectbox("Class", listed, key=f"{key}-class")
        st.text_area(
            "Arguments",
            key=f"{key}-arguments",
            placeholder='{"hidden": 128}',
            help="Keyword arguments as JSON.",
        )


def asks_signature(key: str) -> bool:
    """Whether the chosen way leaves open what the network takes."""
    return str(st.session_state.get(f"{key}-way", "class")) == "class"


def ready(listed: Sequence[str], key: str) -> bool:
    """Whether there is something to answer with."""
    return bool(listed) if asks_signature(key) else bool(st.session_state.get(f"{key}-config"))


def answer(key: str) -> dict[str, Any]:
    """Return what was given, as `services.architectures` takes it. Raises InvalidInputError."""
    state = st.session_state
    return networks.network(
        "class" if asks_signature(key) else "config",
        str(state.get(f"{key}-class") or ""),
        str(state.get(f"{key}-arguments") or ""),
        str(state.get(f"{key}-config") or ""),
    )
