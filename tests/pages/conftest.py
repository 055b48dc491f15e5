"""Pages as AppTest runs them, each on a temporary registry."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from control_plane import ui
from control_plane.services.context import Context
from control_plane.ui import current
from tests.fakes import seeded

MAIN = Path(ui.__file__).parent / "main.py"
PAGES = Path(__file__).parents[2] / "pages"
RUN_TIMEOUT_S = 60

OpenPage = Callable[..., AppTest]


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Context]:
    """A registry with nothing in it, which the pages work on."""
    ctx = seeded.open_home(tmp_path / "home")
    current.use(ctx)
    yield ctx
    ctx.engine.dispose()
    st.cache_data.clear()


@pytest.fixture
def filled(empty: Context) -> Context:
    """The same registry with everything the pages can show."""
    seeded.fill(empty)
    return empty


@pytest.fixture
def open_page() -> OpenPage:
    """Open a page by name with query parameters: `open_page("endpoints", name="digits")`."""

    def run(page: str, /, **query: str) -> AppTest:
        app = AppTest.from_file(str(MAIN), default_timeout=RUN_TIMEOUT_S)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            app.run()
            for name, value in query.items():
                app.query_params[name] = value
            return app.switch_page(str(PAGES / f"{page}.py")).run() if page != "overview" else app.run()

    return run
