"""Buttons that change something: one service call in an `on_click` callback, with a toast or an error card.

A callback runs to its end whatever the user presses next; work under `if st.button()` would be cut short.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import streamlit as st

from control_plane.errors import SignalboxError
from pages._ui import markup

ACTOR: Final = "local"
"""Display name of whoever uses the page; there is no sign-in yet."""
_NOTICES: Final = "notices"


def act(call: Callable[[], Any], success: str, then: dict[str, str | None] | None = None) -> None:
    """Run *call*: toast *success*, or keep the error to show at the top of the page.

    then: query parameters to set (None: remove) once it succeeded.
    """
    try:
        call()
    except SignalboxError as error:
        notices().append((error.message, error.next_step))
        return
    st.toast(success, icon=":material/check_circle:")
    for name, value in (then or {}).items():
        if value is None:
            st.query_params.pop(name, None)
        else:
            st.query_params[name] = value


def pressed(label: str, key: str, *, icon: str, disabled: bool = False) -> bool:
    """A primary button; whether this run comes of its being pressed.

    A callback's arguments are of the run before: a value that was typed just before the click is not among
    them. So the callback only notes the click, and the run that follows, which has every value, acts.
    """
    noted = f"{key}-pressed"
    st.button(label, key=key, type="primary", icon=icon, disabled=disabled, on_click=_note, args=(noted,))
    return bool(st.session_state.pop(noted, False))


def _note(name: str) -> None:
    st.session_state[name] = True


def notices() -> list[tuple[str, str | None]]:
    """Errors of the last action, not shown yet."""
    kept: list[tuple[str, str | None]] = st.session_state.setdefault(_NOTICES, [])
    return kept


def show_notices() -> None:
    """Draw and forget the errors of the last action."""
    for message, next_step in notices():
        st.html(markup.problem(message, next_step))
    notices().clear()


def confirm(
    label: str, question: str, call: Callable[[], None], key: str, *, icon: str, disabled: bool = False
) -> None:
    """A destructive button behind a popover that says what would happen; never on a single key."""
    with st.popover(label, icon=icon, disabled=disabled, key=f"{key}-ask"):
        st.markdown(question)
        st.button(f"Yes, {label.lower()}", key=key, on_click=call, type="primary")
