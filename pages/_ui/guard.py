"""Edges of a page: errors become a card with a sentence and a next step, never a traceback."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec

import streamlit as st

from control_plane.errors import SignalboxError
from pages._ui import markup

P = ParamSpec("P")
logger = logging.getLogger(__name__)


@contextmanager
def guarded() -> Iterator[None]:
    """Draw an error card in place of whatever raised; Streamlit's own control flow passes through."""
    try:
        yield
    except SignalboxError as error:
        st.html(markup.problem(error.message, error.next_step))
    except Exception as error:  # noqa: BLE001  edge of a page: logged with an id, shown without internals
        st.html(markup.problem("Something went wrong on this page.", _unexpected(error)))


def _unexpected(error: Exception) -> str:
    error_id = uuid.uuid4().hex[:8]
    logger.error("page error %s", error_id, exc_info=error)
    return f"The log of the web process holds the cause under {error_id}. Reload the page to try again."


def refreshing(seconds: float | None) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """A part of a page that draws itself again every *seconds* (None: only with the page), guarded.

    Errors inside are shown inside: the part keeps trying, the rest of the page stays.
    """

    def decorate(draw: Callable[P, None]) -> Callable[P, None]:
        @wraps(draw)
        def body(*args: P.args, **kwargs: P.kwargs) -> None:
            with guarded():
                draw(*args, **kwargs)

        return st.fragment(body, run_every=seconds)

    return decorate
