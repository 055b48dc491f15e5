"""The frame around every page: title, style sheet, sidebar footer, and the reads that all viewers share."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from control_plane import ui
from control_plane.domain.views import Status
from control_plane.services import live, system
from control_plane.services.context import Context
from control_plane.ui import current
from control_plane.ui.viewmodels.badges import Badge
from pages._ui import actions, markup
from pages._ui.guard import refreshing

ASSETS: Final = Path(ui.__file__).parent / "assets"
PAGE_DIR: Final = Path(__file__).parents[1]
SHARED_FOR_S: Final = 1.5
"""How long one read of the system's state serves all viewers, in seconds."""


def page_script(name: str) -> str:
    """The path by which Streamlit knows a page: `page_script("versions")`."""
    return str(PAGE_DIR / f"{name}.py")


def has_page(name: str) -> bool:
    """Whether there is a page of that name."""
    return (PAGE_DIR / f"{name}.py").is_file()


@cache
def style_sheet() -> str:
    """The style sheet as a style element."""
    return f"<style>{(ASSETS / 'app.css').read_text('utf-8')}</style>"


def title(text: str, lead: str) -> Context:
    """Draw a page's title, its one-sentence purpose and pending errors; returns the open context."""
    st.title(text, anchor=False)
    st.html(markup.lead(lead))
    actions.show_notices()
    return current.context()


@st.cache_data(ttl=SHARED_FOR_S, show_spinner=False, max_entries=16)
def _status(_ctx: Context, home: str) -> Status:  # noqa: ARG001  home is the key of the cache
    return system.status(_ctx)


def status(ctx: Context) -> Status:
    """The system's state, at most SHARED_FOR_S old."""
    return _status(ctx, ctx.settings.database)


@st.cache_data(ttl=SHARED_FOR_S, show_spinner=False, max_entries=64)
def _bundle(_ctx: Context, home: str, range_s: int, endpoint: str | None) -> dict[str, Any]:  # noqa: ARG001
    bundle: dict[str, Any] = json.loads(live.bundle(_ctx, range_s=range_s, endpoint=endpoint))
    return bundle


def bundle(ctx: Context, range_s: int, endpoint: str | None = None) -> dict[str, Any]:
    """The live charts' data, at most SHARED_FOR_S old."""
    return _bundle(ctx, ctx.settings.database, range_s, endpoint)


def split(widths: list[float]) -> list[DeltaGenerator]:
    """Columns that stand below each other on a narrow screen; one such split a page."""
    return list(st.container(key="split").columns(widths, gap="medium"))


def zone() -> str | None:
    """The viewer's time zone as the browser names it, None when unknown (times are then labelled UTC)."""
    return st.context.timezone


@refreshing(5.0)
def footer() -> None:
    """Who acts, and whether gateway and controller do their work."""
    state = status(current.context())
    st.html(
        markup.foot(
            (
                ("Gateway", _role(state.gateway, "serving")),
                ("Controller", _role(state.controller, "leading")),
                ("Acting as", actions.ACTOR),
            )
        )
    )


def _role(word: str, good: str) -> Badge:
    return Badge("●", word, "good") if word == good else Badge("▲", word, "warn")


def param(name: str) -> str | None:
    """One query parameter, None when absent or empty."""
    return st.query_params.get(name) or None


def empty(heading: str, words: str) -> None:
    """An empty list that says what to do."""
    st.html(markup.empty(heading, words))
