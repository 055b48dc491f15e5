"""A profile in a real browser: taken, looked at in every view, and every file of it opened again."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from control_plane.services import profiling
from control_plane.services.context import Context
from serving_agent.contract import profile
from tests.browser.conftest import OpenTab
from tests.fakes import dashboard, lab, profiles, seeded_profiles
from tests.fakes.dashboard import Dashboard
from tests.fakes.load import Load
from tests.fakes.registry import open_home
from tests.fakes.stack import Stack

pytestmark = pytest.mark.timeout(300)
FILES = {
    "Perfetto trace": "trace.json.gz",
    "HTML": "report.html",
    "Speedscope (": "speedscope.json",
    "Operators": "operators.csv",
    "Functions": "functions.csv",
}
"""What the menu of downloads calls a file, and the file."""
TAB = '[data-testid="stTab"]'


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dashboard, Context]]:
    """A dashboard with a version of which one layer is slow on purpose."""
    folder = tmp_path_factory.mktemp("profiling")
    settings = dashboard.settings_for(folder / "home", architectures=(profiles.NETWORK,))
    ctx = open_home(
        settings.home,
        architectures=(profiles.NETWORK,),
        web_port=settings.web_port,
        gateway_port=settings.gateway_port,
    )
    profiles.register(ctx, folder / "slow")
    with dashboard.running(settings) as running:
        yield running, ctx
    ctx.engine.dispose()


def test_a_profile_is_taken_and_every_file_of_it_opened_again(
    profiled: tuple[Dashboard, Context], open_tab: OpenTab, tmp_path: Path
) -> None:
    shown, ctx = profiled
    tab = open_tab(shown.url)
    page = tab.open(f"/profiling?version={profiles.VERSION}")
    page.get_by_role("spinbutton", name="Requests").fill("5")
    page.get_by_role("spinbutton", name="Seconds at most").fill("0.5")
    page.get_by_role("spinbutton", name="Seconds at most").press("Enter")
    page.get_by_role("button", name="Take profile").click()
    page.wait_for_url(re.compile(r"\?run=[0-9a-f]{32}"))
    expect(page.get_by_text("Queued")).to_be_visible()
    view = profiling.get(ctx, page.url.rpartition("=")[2])
    assert view.asked.requests == 5
    assert lab.perform(ctx, view.job_id).state == "succeeded"
    expect(page.locator(".sb-figure", has_text="Largest cost")).to_contain_text(profiles.SLOW)
    expect(page.get_by_text(re.compile("Own times add up to"))).to_be_visible()
    views(page)
    files(page, tmp_path)
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Open in Speedscope").click()
    speedscope = opened.value
    expect(speedscope).to_have_title(re.compile(f"{profiles.VERSION} - speedscope"))
    expect(speedscope.locator("canvas").first).to_be_visible()
    expect(speedscope.get_by_text("Something went wrong")).to_have_count(0)
    assert tab.errors == []
    assert tab.foreign == []


def test_a_loaded_endpoint_is_profiled_without_a_failed_request(
    stack: Stack, digits: list[dict[str, Any]], open_tab: OpenTab
) -> None:
    before = stack.deploy("profiled", "digits@1", handler="tensor")
    base = f"{stack.settings.gateway_url}/e/profiled"
    tab = open_tab(stack.settings.web_url)
    page = tab.open("/profiling?endpoint=profiled")

    def has_ten_scores(answer: dict[str, Any]) -> None:
        assert len(answer["predictions"][0]) == 10

    body = {"input": [digits[0]["inputs"]["image"]]}
    with Load(f"{base}/predict", body, has_ten_scores, threads=2) as traffic:
        traffic.wait_for_more(10)
        page.get_by_role("spinbutton", name="Requests").fill("100")
        page.get_by_role("spinbutton", name="Requests").press("Enter")
        page.get_by_role("button", name="Take profile").click()
        page.wait_for_url(re.compile(r"\?run=[0-9a-f]{32}"))
        expect(page.locator(".sb-head")).to_contain_text("Succeeded", timeout=120_000)
        traffic.wait_for_more(10)
    assert traffic.failures == []
    expect(page.get_by_role("table").filter(has_text="Queue").first).to_contain_text("Encode")
    report = stack.api.get(f"/profiles/{page.url.rpartition('=')[2]}/report").json()
    assert (report["source"], report["key"]["requests"]) == ("agent", 100)
    assert [stage["name"] for stage in report["stages"]] == list(profile.STAGES)
    after = stack.endpoint("profiled")
    assert [agent["id"] for agent in after["agents"]] == [agent["id"] for agent in before["agents"]]
    assert httpx.post(f"{base}{profile.ROUTE}", json={"requests": 1, "seconds": 1}).status_code == 404
    assert tab.errors == []


def views(page: Page) -> None:
    """Every tab draws what it has; the flame view zooms and searches."""
    slow = page.locator(".box.layer", has_text=profiles.SLOW).first
    expect(slow).to_be_visible()
    before = slow.bounding_box()
    slow.click()
    expect(page.get_by_role("button", name="Zoom out")).to_be_enabled()
    page.wait_for_function(
        "([narrow, name]) => [...document.querySelectorAll('*')].some(each => each.shadowRoot && "
        "[...each.shadowRoot.querySelectorAll('.box.layer')].some("
        "box => box.textContent.includes(name) && box.clientWidth > narrow * 1.05))",
        arg=[before["width"] if before else 0, profiles.SLOW],
    )
    page.get_by_role("button", name="Zoom out").click()
    page.get_by_placeholder("Find a layer, operator or function").fill("aten::tanh")
    expect(page.locator(".box.found").first).to_be_attached()
    for name, part in (
        ("Operators", page.get_by_text("watched requests together")),
        ("Functions", page.get_by_text("cProfile, of")),
        ("Memory", page.locator(".sbf-chart .plot-container")),
        ("Sweep", page.locator(".sbf-chart .plot-container")),
        ("Compare", page.get_by_text(re.compile("nothing to compare with|Compare with"))),
    ):
        page.locator(TAB, has_text=name).click()
        expect(part.first).to_be_visible()
    page.wait_for_url(re.compile("tab=Compare"))


def files(page: Page, folder: Path) -> None:
    """Every download is opened again; the page opens from the disk and asks for nothing."""
    page.get_by_role("button", name="Download").click()
    for label, name in FILES.items():
        with page.expect_download() as coming:
            page.get_by_role("link", name=label).click()
        coming.value.save_as(folder / name)
    trace = json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))
    assert {event.get("cat") for event in trace["traceEvents"]} >= {"cpu_op", "python_function"}
    speedscope = json.loads((folder / "speedscope.json").read_bytes())
    assert speedscope["profiles"]
    assert all(each["type"] in ("evented", "sampled") for each in speedscope["profiles"])
    for name in ("operators.csv", "functions.csv"):
        with (folder / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows
        assert all(row["name"] for row in rows)
    page.keyboard.press("Escape")
    alone = page.context.new_page()
    asked: list[str] = []
    alone.on("request", lambda request: asked.append(request.url))
    alone.goto((folder / "report.html").as_uri())
    expect(alone.get_by_role("heading", name="Flame: operators")).to_be_visible()
    expect(alone.get_by_text(profiles.SLOW).first).to_be_visible()
    assert len(asked) == 1
    alone.close()


def test_two_profiles_are_compared_in_dark(profiled: tuple[Dashboard, Context], open_tab: OpenTab) -> None:
    shown, ctx = profiled
    before = seeded_profiles.add(ctx, seeded_profiles.report(), name="before", ref=profiles.VERSION)
    after = seeded_profiles.add(ctx, seeded_profiles.report(slow=3.0), name="after", ref=profiles.VERSION)
    tab = open_tab(shown.url, color_scheme="dark")
    page = tab.open(f"/profiling?run={after}&tab=Compare&with={before}")
    expect(page.locator(".box.slower", has_text="aten::tanh").first).to_be_visible()
    expect(page.get_by_role("cell", name="+3 ms").first).to_be_visible()
    assert tab.errors == []
    assert tab.foreign == []
