"""Rollouts in a real browser: every state in both themes, double clicks, stale tabs, and one journey."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import Locator, Page, WebSocketRoute, expect
from streamlit.proto.BackMsg_pb2 import BackMsg

from control_plane.domain.rollout import RolloutState
from tests.browser.conftest import OpenTab
from tests.fakes import dashboard, example_homes, seeded, seeded_rollouts
from tests.fakes import stack as stacks
from tests.fakes.dashboard import Dashboard
from tests.fakes.load import Load
from tests.fakes.stack import Stack

pytestmark = pytest.mark.timeout(900)
REFRESHES_MS = 5_000
"""Long enough for every part of the page to have drawn itself again."""
START_MS = 90_000
BACKGROUND: dict[Literal["light", "dark"], str] = {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 20, 26)"}
BOTH_WAYS: tuple[tuple[Literal["light", "dark"], ...], ...] = (("light", "dark"), ("dark", "light"))
PACE_S = 0.5
"""Pause between two requests of the journey, in seconds."""


@dataclass(frozen=True)
class Gallery:
    """A dashboard with a rollout in every state, their ids by name."""

    running: Dashboard
    ids: dict[str, str]

    @property
    def url(self) -> str:
        return self.running.url

    def path(self, name: str) -> str:
        return f"/rollouts?id={self.ids[name]}"

    def view(self, name: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/api/v1/rollouts/{self.ids[name]}")
        answer.raise_for_status()
        return dict(answer.json())

    def actions(self, name: str) -> list[str]:
        answer = httpx.get(f"{self.url}/api/v1/rollouts/{self.ids[name]}/events")
        return [event["action"] for event in answer.json()["items"]]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    # no controller renews the seeded verdicts: they must not grow old under the tests' hands
    settings = dashboard.settings_for(tmp_path_factory.mktemp("rollouts"), rollout_stale_s=3600)
    ctx = seeded.open_home(settings.home, web_port=settings.web_port, gateway_port=settings.gateway_port)
    seeded.fill(ctx)
    ids = seeded_rollouts.fill(ctx)
    passed = seeded_rollouts.verdict("PASS", seeded_rollouts.SAFE, worst="safe")
    for name in ("twice", "keys", "stale-tab"):
        ids[name] = seeded_rollouts.add(ctx, f"r-{name}", RolloutState.BAKING, judged=passed)
    ctx.engine.dispose()
    with dashboard.running(settings) as running:
        yield Gallery(running, ids)


def _verdict(page: Page) -> Locator:
    return page.locator(".sb-verdict")


def test_every_state_without_errors_or_foreign_requests(gallery: Gallery, open_tab: OpenTab) -> None:
    """Each page is loaded once and then changes its theme, with which everything on it is drawn again."""
    tab = open_tab(gallery.url)
    paths = ["/rollouts", "/rollouts?new=digits&candidate=digits@2", *map(gallery.path, gallery.ids)]
    for path, schemes in zip(paths, itertools.cycle(BOTH_WAYS), strict=False):
        for scheme in schemes:
            tab.page.emulate_media(color_scheme=scheme)
            page = tab.open(path) if scheme == schemes[0] else tab.page
            expect(page.locator(".stApp")).to_have_css("background-color", BACKGROUND[scheme])
            expect(page.locator('[data-testid="stStatusWidget"]')).to_have_count(0)
            expect(page.get_by_text("Something went wrong")).to_have_count(0)
    assert tab.errors == []
    assert tab.foreign == []


@pytest.mark.parametrize("width", [390, 1000])
def test_nothing_runs_out_of_a_narrow_window(width: int, gallery: Gallery, open_tab: OpenTab) -> None:
    tab = open_tab(gallery.url, viewport={"width": width, "height": 900})
    for path in ("/rollouts", gallery.path("baking")):
        page = tab.open(path)
        expect(page.locator('[data-testid="stStatusWidget"]')).to_have_count(0)
        wide, seen = page.evaluate(
            "(() => { const main = document.querySelector('[data-testid=stMain]');"
            " return [main.scrollWidth, main.clientWidth]; })()"
        )
        assert wide <= seen + 1, path


def test_a_double_click_promotes_one_step(gallery: Gallery, open_tab: OpenTab) -> None:
    page = open_tab(gallery.url).open(gallery.path("twice"))
    page.get_by_role("button", name="Promote to 50 %").dblclick()
    expect(_verdict(page)).to_contain_text("SHIFTING")
    view = gallery.view("twice")
    assert (view["state"], view["weight"]) == ("shifting", 0.5)
    assert gallery.actions("twice").count("rollout.promoted") == 1


class Stale:
    """Keeps a page as it was drawn first: its own refreshes do not reach the server until it is freed."""

    def __init__(self, page: Page) -> None:
        self._kept = True
        page.route_web_socket(re.compile("/_stcore/stream"), self._connect)

    def free(self) -> None:
        self._kept = False

    def _connect(self, from_page: WebSocketRoute) -> None:
        to_server = from_page.connect_to_server()

        def sent(message: str | bytes) -> None:
            asked = BackMsg.FromString(message) if isinstance(message, bytes) else BackMsg()
            if not (self._kept and asked.rerun_script.is_auto_rerun):
                to_server.send(message)

        from_page.on_message(sent)


def test_a_stale_tab_says_who_moved_it(gallery: Gallery, open_tab: OpenTab) -> None:
    tab = open_tab(gallery.url)
    stale = Stale(tab.page)
    page = tab.open(gallery.path("stale-tab"))
    button = page.get_by_role("button", name="Promote to 50 %")
    expect(button).to_be_visible()
    moved = httpx.post(
        f"{gallery.url}/api/v1/rollouts/{gallery.ids['stale-tab']}/promote",
        json={},
        headers={"x-signalbox-actor": "bo"},
    )
    assert moved.is_success, moved.text
    button.click()
    refusal = page.get_by_text(re.compile("the rollout moved on: it is shifting .*, moved by bo "))
    expect(refusal).to_be_visible()
    expect(_verdict(page)).to_contain_text("SHIFTING")
    stale.free()
    page.wait_for_timeout(REFRESHES_MS)
    expect(refusal).to_be_visible()
    assert gallery.view("stale-tab")["weight"] == 0.5
    assert gallery.actions("stale-tab").count("rollout.promoted") == 1


def test_p_promotes_and_a_typed_reason_survives_the_refreshes(gallery: Gallery, open_tab: OpenTab) -> None:
    page = open_tab(gallery.url).open(gallery.path("keys"))
    reason = page.get_by_label("Reason")
    reason.fill("looks good, p99 too")
    page.wait_for_timeout(REFRESHES_MS)
    expect(reason).to_have_value("looks good, p99 too")
    assert gallery.view("keys")["state"] == "baking", "a p in a text promotes nothing"
    reason.press("Tab")
    page.locator("h1").first.click()
    page.keyboard.press("p")
    expect(_verdict(page)).to_contain_text("SHIFTING")
    expect(page.get_by_role("table").get_by_text("looks good, p99 too")).to_be_visible()


def test_promoting_fully_names_version_and_digest_first(gallery: Gallery, open_tab: OpenTab) -> None:
    page = open_tab(gallery.url).open(gallery.path("held"))
    expect(page.get_by_role("button", name="Promote fully")).to_have_count(0)
    page.goto(gallery.url + gallery.path("approval"))
    page.get_by_role("button", name="Promote fully").click()
    expect(page.get_by_text(re.compile(r"sha256:[0-9a-f]{12}")).first).to_be_visible()
    page.wait_for_timeout(REFRESHES_MS)
    yes = page.get_by_role("button", name="Yes, promote fully")
    expect(yes).to_be_visible()
    yes.click()
    expect(_verdict(page)).to_contain_text("SHIFTING")
    assert gallery.view("approval")["weight"] == 1.0


def test_charts_carry_step_and_limit_lines(gallery: Gallery, open_tab: OpenTab) -> None:
    page = open_tab(gallery.url).open(gallery.path("baking"))
    errors = page.locator('.sbl-chart[data-panel="error_rate"]')
    expect(errors.get_by_text("limit")).to_be_visible()
    expect(errors.get_by_text("25 %")).to_be_visible()
    errors.locator(".main-svg").first.evaluate("svg => { svg.dataset.kept = 'yes'; }")
    page.wait_for_timeout(REFRESHES_MS)
    assert errors.locator(".main-svg").first.get_attribute("data-kept") == "yes"


def test_the_filter_is_in_the_address(gallery: Gallery, open_tab: OpenTab) -> None:
    page = open_tab(gallery.url).open("/rollouts")
    page.get_by_role("radio", name="Failed 1").or_(page.get_by_role("button", name="Failed 1")).first.click()
    page.wait_for_url("**/rollouts?*state=failed*")
    titles = page.locator(".sb-card-title")
    expect(titles).to_have_count(1)
    page.reload()
    expect(titles).to_have_count(1)
    expect(titles).to_contain_text("r-failed")


# --- one whole journey ---


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A whole Signalbox with both versions of the example, the first one deployed."""
    home = example_homes.loaded(tmp_path_factory, tmp_path_factory.mktemp("fresh") / "home")
    with stacks.running(stacks.settings_for(home)) as running:
        made = running.cli("example")
        assert made.returncode == 0, made.stderr
        running.deploy("digits", "digits@1")
        yield running


def test_from_draft_to_stable_and_back_without_a_failed_request(
    fresh: Stack, open_tab: OpenTab, tmp_path: Path
) -> None:
    """With so few requests that the evidence decides nothing by itself: a person does, with a reason."""
    examples = fresh.api.get("/models/digits/versions/1/examples").json()
    example = (examples["items"] if isinstance(examples, dict) else examples)[0]

    def answered(answer: dict[str, Any]) -> None:
        assert answer["predictions"]
        time.sleep(PACE_S)

    url = f"{fresh.settings.gateway_url}/e/digits/predict"
    tab = open_tab(fresh.settings.web_url)
    load = Load(url, {"input": [example["inputs"]["image"]]}, answered, threads=1)
    with _told(fresh, "digits"), load:
        page = tab.open("/endpoints?name=digits")
        page.get_by_role("link", name="Start a rollout").click()
        _draft(page)
        expect(page.locator(".sb-strip")).to_contain_text("baking", timeout=START_MS)
        _with_reason(page, "checked by hand")
        page.get_by_role("button", name="Promote fully").click()
        page.get_by_role("button", name="Yes, promote fully").click()
        expect(page.locator(".sb-head")).to_contain_text("All traffic", timeout=START_MS)
        _with_reason(page, "no need to wait")
        page.get_by_role("button", name="Finish now").click()
        expect(_verdict(page)).to_contain_text("COMPLETED", timeout=START_MS)
        expect(page.locator(".sb-notes")).to_contain_text("digits@1 stays warm for")
        page.get_by_role("button", name="Roll back").click()
        expect(_verdict(page)).to_contain_text("ROLLED BACK", timeout=START_MS)
    assert load.failures == []
    assert fresh.endpoint("digits")["serving_ref"] == "digits@1"
    assert tab.foreign == []
    page.reload()
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Markdown").click()
    downloading.value.save_as(tmp_path / "report.md")
    assert "checked by hand" in (tmp_path / "report.md").read_text("utf-8")


@contextmanager
def _told(stack: Stack, endpoint: str) -> Iterator[None]:
    """Have a failure say where the endpoint's rollout is, why, and what its gates said."""
    try:
        yield
    except AssertionError as error:
        view = stack.api.get(f"/endpoints/{endpoint}/rollout").json()
        known = ("state", "step", "code", "reason", "verdict", "sentence", "gates")
        error.add_note(json.dumps({name: view.get(name) for name in known}, indent=1))
        raise


def _with_reason(page: Page, reason: str) -> None:
    field = page.get_by_role("textbox", name="Reason")
    field.fill(reason)
    field.press("Enter")


def _draft(page: Page) -> None:
    shares = page.get_by_label("Share of requests at each step, %", exact=True)
    shares.fill("50")
    shares.press("Enter")
    bake = page.get_by_label("Bake per step, seconds", exact=True)
    bake.fill("5")
    bake.press("Enter")
    expect(page.locator(".st-key-draft-steps")).to_contain_text("bake 0:05", timeout=START_MS)
    page.get_by_role("button", name=re.compile("^Start: digits@1")).click()
    expect(page.get_by_text(re.compile("Rollout · digits"))).to_be_visible(timeout=START_MS)
    expect(page.locator(".st-key-draft-steps")).to_have_count(0, timeout=START_MS)
