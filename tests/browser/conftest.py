"""A real browser on a real web process."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.fakes import dashboard, seeded
from tests.fakes.dashboard import Dashboard

CHROMIUM = (
    os.environ.get("SIGNALBOX_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
)
"""Browser to test with; None for the one that playwright installed."""
FLAGS = ["--disable-gpu", "--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
READY = '[data-testid="stHeading"], .sb-head, .sb-problem'
PATIENCE_MS = 45_000
"""How long anything may take to show: machines are shared, and nothing waits longer than it has to."""
HARMLESS = re.compile(r"/_stcore/(health|host-config)$")
"""On a deep link Streamlit asks below the page's own path first and goes on after the 404."""

expect.set_options(timeout=PATIENCE_MS)


@dataclass
class Tab:
    """An open page with what went wrong on it, and every request that left our origin."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        """Go to *path* of the dashboard and wait until its heading is drawn."""
        self.page.goto(self.url + path)
        self.page.wait_for_selector(READY)
        return self.page


OpenTab = Callable[..., Tab]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser a module: while it lives its event loop runs in this thread, where others need theirs."""
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A web process on a registry with everything the pages can show."""
    settings = dashboard.settings_for(tmp_path_factory.mktemp("home"))
    ctx = seeded.open_home(settings.home, web_port=settings.web_port, gateway_port=settings.gateway_port)
    seeded.fill(ctx)
    ctx.engine.dispose()
    with dashboard.running(settings) as running:
        yield running


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A web process on an empty registry."""
    settings = dashboard.settings_for(tmp_path_factory.mktemp("empty"))
    seeded.open_home(settings.home).engine.dispose()
    with dashboard.running(settings) as running:
        yield running


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[OpenTab]:
    """Make tabs that record errors and foreign requests: `open_tab(shown.url, color_scheme="dark")`."""
    contexts = []

    def make(url: str, **options: Any) -> Tab:
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        tab = Tab(context.new_page(), url)
        _watch(tab)
        return tab

    yield make
    for context in contexts:
        context.close()


def _watch(tab: Tab) -> None:
    def request(sent: Any) -> None:
        if not sent.url.startswith((tab.url, tab.url.replace("http", "ws"), "data:", "blob:")):
            tab.foreign.append(sent.url)

    def console(message: Any) -> None:
        where = message.location.get("url", "")
        if message.type == "error" and not HARMLESS.search(where):
            tab.errors.append(f"{message.text} ({where})")

    tab.page.on("request", request)
    tab.page.on("websocket", lambda opened: request(opened))
    tab.page.on("console", console)
    tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
