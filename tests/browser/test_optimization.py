"""The optimisation lab in a real browser: its pages in both themes, the live chart, and one whole story."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import OpenTab
from tests.fakes import dashboard, seeded, seeded_optimization
from tests.fakes import stack as stacks
from tests.fakes.dashboard import Dashboard
from tests.fakes.load import Load
from tests.fakes.stack import Stack
from tests.fakes.waiting import wait_until

pytestmark = pytest.mark.timeout(900)
START_MS = 90_000
SEARCH_MS = 240_000
REFRESHES_MS = 4_000
"""Long enough for the page to have drawn itself again."""
PACE_S = 0.5
"""Pause between two requests of the story, in seconds."""
MINUTES = "0.5"
"""Time of the story's search: enough for a trial or two on two busy cores."""


@dataclass(frozen=True)
class Lab:
    """A dashboard with a job of the lab in every state, their ids by name."""

    running: Dashboard
    ids: dict[str, str]

    @property
    def url(self) -> str:
        return self.running.url

    def path(self, name: str) -> str:
        return f"/optimization?job={self.ids[name]}"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    settings = dashboard.settings_for(tmp_path_factory.mktemp("lab"))
    ctx = seeded.open_home(settings.home, web_port=settings.web_port, gateway_port=settings.gateway_port)
    seeded.fill(ctx)
    ids = seeded_optimization.fill(ctx)
    seeded_optimization.register(ctx, ids["rejected"], 1)
    ctx.engine.dispose()
    with dashboard.running(settings) as running:
        yield Lab(running, ids)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_every_state_without_errors_foreign_requests_or_overflow(
    scheme: str, width: int, lab: Lab, open_tab: OpenTab
) -> None:
    tab = open_tab(lab.url, color_scheme=scheme, viewport={"width": width, "height": 900})
    paths = [
        "/optimization",
        "/optimization?version=digits@1",
        *map(lab.path, lab.ids),
        "/versions?id=digits@3",
    ]
    for path in paths:
        page = tab.open(path)
        _settle(page)
        expect(page.get_by_text("Something went wrong")).to_have_count(0)
        wide, seen = page.evaluate(
            "(() => { const main = document.querySelector('[data-testid=stMain]');"
            " return [main.scrollWidth, main.clientWidth]; })()"
        )
        assert wide <= seen + 1, path
    assert tab.errors == []
    assert tab.foreign == []


def test_the_chart_keeps_zoom_and_opens_the_report_of_a_point(lab: Lab, open_tab: OpenTab) -> None:
    page = open_tab(lab.url).open(lab.path("searching"))
    chart = page.locator(".sbo-chart")
    expect(chart.locator("path.point").first).to_be_visible(timeout=START_MS)
    whole = _range(page)
    _zoom(page)
    zoomed = _range(page)
    assert zoomed[1] < whole[1]
    page.wait_for_timeout(REFRESHES_MS)
    assert _range(page) == zoomed
    assert chart.locator(".main-svg").first.get_attribute("data-kept") == "yes"
    _click(page, 5)
    report = page.locator(".st-key-optimization-trial")
    expect(report).to_contain_text("REJECTED", timeout=START_MS)
    expect(page).to_have_url(re.compile("trial=5"))
    assert _range(page) == zoomed, "the chosen point changes no zoom"
    page.reload()
    expect(report).to_contain_text("Static int8", timeout=START_MS)
    report.get_by_role("combobox").click()
    page.get_by_role("option", name=re.compile("^8 · ONNX")).click()
    expect(report).to_contain_text("no ONNX counterpart", timeout=START_MS)
    expect(page).to_have_url(re.compile("trial=8"))


def test_calibration_rows_are_checked_before_anything_starts(
    lab: Lab, open_tab: OpenTab, tmp_path: Path
) -> None:
    tab = open_tab(lab.url)
    page = tab.open("/optimization?version=digits@1&method=onnx-static-int8")
    page.get_by_text("A file", exact=True).click()
    start = page.get_by_role("button", name=re.compile("^Make and measure it"))
    expect(page.get_by_text("no calibration rows were uploaded")).to_be_visible(timeout=START_MS)
    expect(start).to_be_disabled()
    rows = page.locator('input[type="file"]')
    rows.set_input_files(_rows(tmp_path / "short.json", [[0.0] * 8]))
    expect(page.get_by_text(re.compile("short.json is not used: row 1"))).to_be_visible(timeout=START_MS)
    rows.set_input_files(_rows(tmp_path / "good.json", [[[0.5] * 8] * 8]))
    expect(page.get_by_text("2 rows of good.json were sent and fit.")).to_be_visible(timeout=START_MS)
    expect(start).to_be_enabled()
    start.click()
    expect(page.get_by_text("Optimise digits@1 by onnx-static-int8")).to_be_visible(timeout=START_MS)


def _rows(file: Path, image: list[Any]) -> Path:
    file.write_text(json.dumps([{"inputs": {"image": image}}] * 2), "utf-8")
    return file


def _settle(page: Page) -> None:
    """Wait until Streamlit has drawn the page to its end."""
    expect(page.locator('[data-testid="stStatusWidget"]')).to_have_count(0, timeout=START_MS)


def _zoom(page: Page) -> None:
    """Drag a box over the left upper part, and mark the drawing, so that it can be told from another."""
    page.locator(".sbo-chart").scroll_into_view_if_needed()
    box = page.locator(".sbo-chart .nsewdrag").bounding_box()
    assert box
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.7, steps=5)
    page.mouse.up()
    page.locator(".sbo-chart .main-svg").first.evaluate("svg => { svg.dataset.kept = 'yes'; }")


def _range(page: Page) -> list[float]:
    found: list[float] = page.evaluate("document.querySelector('.sbo-chart')._fullLayout.xaxis.range")
    return found


def _click(page: Page, number: int) -> None:
    """Click the point of a trial, once the chart names what is under the pointer."""
    label = page.locator(".sbo-chart .hoverlayer .hovertext")

    def named() -> bool:
        x, y = _place(page, number)
        page.mouse.move(x - 2, y)
        page.mouse.move(x, y)
        page.wait_for_timeout(200)
        return label.count() > 0 and (x, y) == _place(page, number)

    wait_until(named, timeout_s=30, what=lambda: f"trial {number} is not named at {_place(page, number)}")
    page.mouse.down()
    page.mouse.up()


def _place(page: Page, number: int) -> tuple[float, float]:
    """Where the point of a trial is drawn."""
    x, y = page.evaluate(
        "(number) => { const chart = document.querySelector('.sbo-chart');"
        " chart.scrollIntoView({block: 'center'});"
        " for (const trace of chart.querySelectorAll('.scatterlayer .trace')) {"
        "  const at = (trace.__data__[0].trace.customdata ?? []).indexOf(number);"
        "  if (at < 0) continue;"
        "  const box = trace.querySelectorAll('path.point')[at].getBoundingClientRect();"
        "  return [box.x + box.width / 2, box.y + box.height / 2]; }"
        " return [0, 0]; }",
        number,
    )
    return x, y


# --- one whole story ---


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A whole Signalbox with nothing in it."""
    with stacks.running(stacks.settings_for(tmp_path_factory.mktemp("fresh"))) as running:
        yield running


def test_from_the_example_to_a_promoted_variant(fresh: Stack, open_tab: OpenTab) -> None:
    """Load, deploy, autotune, pick a point, register it, and roll it out against its parent."""
    tab = open_tab(fresh.settings.web_url)
    page = tab.open("/")
    page.get_by_role("button", name="Load the example").click()
    expect(page.get_by_text("The example is ready")).to_be_visible(timeout=START_MS)
    fresh.deploy("digits", "digits@1")
    job = _autotune(tab.open("/versions?id=digits@1"), fresh)
    picked = _pick(fresh, job)
    variant = _register(page, fresh, picked)
    _roll_out(page, fresh, variant, waived=not picked["decision"]["accepted"])
    assert fresh.endpoint("digits")["serving_ref"] == variant
    assert tab.foreign == []
    assert tab.errors == []


def _autotune(page: Page, stack: Stack) -> str:
    """Start a search from the version's page and wait for its end; its job."""
    page.get_by_role("link", name="Optimise", exact=True).click()
    minutes = page.get_by_label("Time, minutes", exact=True)
    minutes.fill(MINUTES)
    page.get_by_role("button", name="Start the search").click()
    expect(page.get_by_text("Autotune digits@1 for latency")).to_be_visible(timeout=START_MS)
    expect(page.locator(".sb-head")).to_contain_text("Succeeded", timeout=SEARCH_MS)
    found = re.search(r"job=([0-9a-f]{32})", page.url)
    assert found
    return found[1]


def _pick(stack: Stack, job: str) -> dict[str, Any]:
    """A trial that was measured in full and is no version yet: an accepted one where there is one.

    How many there are by the end depends on what else the machine does. One that was rejected can be rolled
    out with a reason; the only one, if it was accepted, is a version already.
    """
    trials = stack.api.get(f"/jobs/{job}/trials").json()
    measured = [each for each in trials if each["decision"]]
    assert measured, json.dumps(
        [(each["method"], each["state"], each["reason"]) for each in trials], indent=1
    )
    found: dict[str, Any] = max(
        measured, key=lambda each: (each["decision"]["accepted"], each["registrable"], -each["number"])
    )
    return found


def _register(page: Page, stack: Stack, picked: dict[str, Any]) -> str:
    """Pick the trial by its point and have a version made of it; its name."""
    _click(page, picked["number"])
    page.wait_for_url(re.compile(r"trial=\d+"))  # of this point, or of one that it lies upon
    page.goto(f"{stack.settings.web_url}/optimization?job={picked['job_id']}&trial={picked['number']}")
    report = page.locator(".st-key-optimization-trial")
    said = "ACCEPTED" if picked["decision"]["accepted"] else "REJECTED"
    expect(report).to_contain_text(said, timeout=START_MS)
    if picked["registrable"]:
        report.get_by_role("button", name="Register").click()
    opened = report.get_by_role("link", name=re.compile(r"^.*Open digits@\d+"))
    expect(opened).to_be_visible(timeout=START_MS)
    ref = re.search(r"digits@\d+", opened.inner_text())
    assert ref
    return ref[0]


def _roll_out(page: Page, stack: Stack, variant: str, *, waived: bool) -> None:
    """From the trial's report to all traffic, while requests flow."""
    examples = stack.api.get("/models/digits/versions/1/examples").json()
    example = (examples["items"] if isinstance(examples, dict) else examples)[0]

    def answered(answer: dict[str, Any]) -> None:
        assert answer["predictions"]
        time.sleep(PACE_S)

    url = f"{stack.settings.gateway_url}/e/digits/predict"
    load = Load(url, {"input": [example["inputs"]["image"]]}, answered, threads=1)
    with load:
        page.get_by_role("link", name="Roll out at digits").click()
        if waived:
            reason = page.get_by_label("Waive the rejection, because", exact=True)
            reason.fill("it is what was measured")
            reason.press("Enter")
        _draft(page, variant)
        _wait_for(stack, lambda view: view["state"] in ("baking", "failed"))
        expect(page.locator(".sb-strip").first).to_contain_text("baking", timeout=START_MS)
        reason = page.get_by_role("textbox", name="Reason")
        reason.fill("measured beside its parent")
        reason.press("Enter")
        page.get_by_role("button", name="Promote fully").click()
        page.get_by_role("button", name="Yes, promote fully").click()
        wait_until(
            lambda: stack.endpoint("digits")["serving_ref"] == variant or _finish(page),
            timeout_s=START_MS / 1000,
            what=lambda: json.dumps(stack.api.get("/endpoints/digits/rollout").json(), indent=1),
        )
    assert load.failures == []


def _wait_for(stack: Stack, there: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until the rollout is where it should be; it must not have failed, and says why it did."""

    def look() -> dict[str, Any] | None:
        view: dict[str, Any] = stack.api.get("/endpoints/digits/rollout").json()
        return view if there(view) else None

    def told() -> str:
        view = stack.api.get("/endpoints/digits/rollout").json()
        return json.dumps({name: view.get(name) for name in ("state", "reason", "gates")}, indent=1)

    found = wait_until(look, timeout_s=START_MS / 1000, what=told)
    assert found["state"] != "failed", told()


def _finish(page: Page) -> bool:
    """Press Finish now once it is there; never the end by itself."""
    button = page.get_by_role("button", name="Finish now")
    if button.is_visible():
        button.click()
    page.wait_for_timeout(500)
    return False


def _draft(page: Page, variant: str) -> None:
    shares = page.get_by_label("Share of requests at each step, %", exact=True)
    shares.fill("50")
    shares.press("Enter")
    bake = page.get_by_label("Bake per step, seconds", exact=True)
    bake.fill("5")
    bake.press("Enter")
    expect(page.locator(".st-key-draft-steps")).to_contain_text("bake 0:05", timeout=START_MS)
    page.get_by_role("button", name=re.compile(f"^.*Start: digits@1 → {variant}")).click()
    expect(page.get_by_text(re.compile("Rollout · digits"))).to_be_visible(timeout=START_MS)
