"""The dashboard in a real browser: every page in both themes, deep links, live charts, upload."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import OpenTab
from tests.fakes.dashboard import Dashboard

PATHS = (
    "/",
    "/endpoints",
    "/endpoints?name=digits",
    "/endpoints?name=digits&tab=Playground",
    "/endpoints?name=digits&tab=Metrics",
    "/endpoints?deploy=digits@2",
    "/live",
    "/versions",
    "/versions?id=digits@2",
    "/upload",
    "/jobs",
    "/activity",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_without_errors_or_foreign_requests(
    scheme: str, shown: Dashboard, open_tab: OpenTab
) -> None:
    tab = open_tab(shown.url, color_scheme=scheme)
    for path in PATHS:
        page = tab.open(path)
        expect(page.locator('[data-testid="stStatusWidget"]')).to_have_count(0)
        expect(page.get_by_text("Something went wrong")).to_have_count(0)
    background = tab.page.eval_on_selector(".stApp", "app => getComputedStyle(app).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(15, 20, 26)"}[scheme]
    assert tab.page.evaluate("document.fonts.check('14px Inter')")
    assert tab.errors == []
    assert tab.foreign == []


def test_an_empty_dashboard_says_what_to_do(empty: Dashboard, open_tab: OpenTab) -> None:
    page = open_tab(empty.url).open("/")
    expect(page.get_by_text("Three steps to a prediction")).to_be_visible()
    page.get_by_role("button", name="Load the example").click()
    expect(page.get_by_text("waiting for a free worker")).to_be_visible()
    jobs = httpx.get(f"{empty.url}/api/v1/jobs", params={"kind": "example"}).json()
    assert jobs["total"] == 1


def test_a_deep_link_survives_a_reload(shown: Dashboard, open_tab: OpenTab) -> None:
    page = open_tab(shown.url).open("/versions?q=candidate")
    expect(page.get_by_text("1 version")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Search", exact=True)).to_have_value("candidate")


def test_the_way_back_is_in_the_address_too(shown: Dashboard, open_tab: OpenTab) -> None:
    """A reload would lead to where one has just come from."""
    tab = open_tab(shown.url)
    page = tab.open("/versions?id=digits@1")
    page.get_by_role("link", name="All versions").click()
    page.wait_for_url(re.compile(r"/versions(\?(?!.*\bid=).*)?$"))
    page.reload()
    expect(page.get_by_role("heading", name="Versions", exact=True)).to_be_visible()
    assert tab.errors == []


def test_filters_write_the_address(shown: Dashboard, open_tab: OpenTab) -> None:
    page = open_tab(shown.url).open("/live")
    page.get_by_role("radio", name="1 h").or_(page.get_by_role("button", name="1 h")).first.click()
    page.wait_for_url("**/live?*range=1*h*")


def test_live_charts_update_in_place_and_keep_the_zoom(shown: Dashboard, open_tab: OpenTab) -> None:
    tab = open_tab(shown.url)
    page = tab.open("/live?range=5+min")
    chart = page.locator('.sbl-chart[data-panel="request_rate"]')
    expect(chart.locator(".scatterlayer path.js-line").first).to_be_visible()
    chart.locator(".main-svg").first.evaluate("svg => { svg.dataset.kept = 'yes'; }")
    box = chart.locator(".nsewdrag").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 62, steps=8)
    page.mouse.up()
    read_range = "chart => chart._fullLayout.xaxis.range.map(edge => new Date(edge).getTime())"
    zoomed = chart.evaluate(read_range)
    assert zoomed[1] - zoomed[0] < 5 * 60_000 * 0.6
    for _ in range(2):
        with page.expect_response(lambda answer: "/api/v1/live" in answer.url and answer.ok):
            pass
    page.wait_for_function("() => document.querySelector('.sbl-badge.live, .sbl-badge.stale')")
    assert chart.evaluate(read_range) == zoomed
    other = page.locator('.sbl-chart[data-panel="latency_p99"]')
    assert other.evaluate(read_range) == zoomed
    assert chart.locator(".main-svg").first.get_attribute("data-kept") == "yes"
    page.mouse.dblclick(box["x"] + box["width"] * 0.5, box["y"] + 60)
    page.wait_for_function(
        f"chart => (({read_range})(chart)[1] - ({read_range})(chart)[0]) > 280000", arg=chart.element_handle()
    )
    assert tab.errors == []


def test_pausing_stops_the_requests(shown: Dashboard, open_tab: OpenTab) -> None:
    page = open_tab(shown.url).open("/live")
    expect(page.locator(".sbl-chart .main-svg").first).to_be_visible()
    page.get_by_text("Pause").click()
    expect(page.locator(".sbl-badge.paused")).to_have_text("❚❚ Paused")
    asked: list[str] = []
    page.on("request", lambda sent: asked.append(sent.url) if "/api/v1/live" in sent.url else None)
    page.wait_for_timeout(4500)
    assert asked == []


def test_lost_dashboard_shows_as_stale_data(shown: Dashboard, open_tab: OpenTab) -> None:
    page = open_tab(shown.url).open("/live")
    expect(page.locator(".sbl-chart .main-svg").first).to_be_visible()
    page.route("**/api/v1/live*", lambda route: route.abort())
    expect(page.locator(".sbl-badge.stale")).to_contain_text("Not updating")
    expect(page.locator(".sbl-chart .main-svg").first).to_be_visible()


def test_no_gpu_is_a_sentence(shown: Dashboard, open_tab: OpenTab) -> None:
    page = open_tab(shown.url).open("/live")
    expect(page.get_by_text("no NVIDIA GPU found").first).to_be_visible()


def test_uploading_a_file(empty: Dashboard, open_tab: OpenTab, tmp_path: Path) -> None:
    file = tmp_path / "My Model.pt"
    file.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 4000)
    tab = open_tab(empty.url)
    page = tab.open("/upload")
    page.locator("input#file").set_input_files(file)
    expect(page.get_by_label("Model name")).to_have_value("my-model")
    expect(page.get_by_text("A program holds more than weights")).to_be_visible()
    page.get_by_role("checkbox", name="Run this program").check()
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/upload?id=*")
    expect(page.get_by_text("Checked", exact=True)).to_be_visible()
    upload = httpx.get(f"{empty.url}/api/v1/uploads").json()["items"][0]
    assert (upload["model_name"], upload["state"]) == ("my-model", "checking")
    assert upload["files"][0]["received_bytes"] == file.stat().st_size
    assert upload["program_accepted_by"] == "local"
    assert tab.errors == []


def test_a_bad_model_name_is_explained_in_the_form(
    empty: Dashboard, open_tab: OpenTab, tmp_path: Path
) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(b"x")
    page = open_tab(empty.url).open("/upload")
    page.locator("input#file").set_input_files(file)
    page.get_by_label("Model name").fill("Not A Name")
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.get_by_text("is not usable")).to_be_visible()


def test_picking_an_example(shown: Dashboard, open_tab: OpenTab) -> None:
    page = open_tab(shown.url).open("/endpoints?name=digits&tab=Playground")
    page.get_by_role("option", name="Example 4, labelled 3").click()
    expect(page.get_by_text("Example 4, labelled 3")).to_be_visible()
    page.get_by_role("button", name="Run").click()
    expect(page.locator(".sb-problem")).to_be_visible()


@pytest.mark.parametrize("path", ["/", "/live", "/versions", "/endpoints?name=digits", "/upload"])
def test_narrow_screens_need_no_sideways_scrolling(path: str, shown: Dashboard, open_tab: OpenTab) -> None:
    page = open_tab(shown.url, viewport={"width": 800, "height": 900}).open(path)
    expect(page.locator('[data-testid="stStatusWidget"]')).to_have_count(0)
    wide = page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth")
    seen = page.evaluate("document.querySelector('[data-testid=stMain]').clientWidth")
    assert wide <= seen + 1


def test_pages_of_a_refreshing_list_can_be_turned(shown: Dashboard, open_tab: OpenTab) -> None:
    for i in range(21):
        body = {"kind": "example", "subject": f"job-{i}", "params": {}}
        assert httpx.post(f"{shown.url}/api/v1/jobs", json=body).is_success
    page = open_tab(shown.url).open("/jobs?state=Queued")
    oldest = page.locator(".sb-card-title", has_text=re.compile(r"job-0\b"))
    expect(page.locator(".sb-card-title", has_text="job-20")).to_be_visible()
    expect(oldest).to_have_count(0)
    page.get_by_role("button", name="Page 2").click()
    expect(oldest).to_be_visible()
    page.wait_for_url("**/jobs?*page=2*")
