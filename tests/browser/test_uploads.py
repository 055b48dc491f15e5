"""Uploads from a real browser: paused, reloaded, cut, and a server that is killed in the middle."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Error, Page, Route, expect

from control_plane.config import Settings
from tests.browser.conftest import OpenTab
from tests.fakes import dashboard, seeded
from tests.fakes.dashboard import Dashboard
from tests.fakes.waiting import wait_until

PIECE_BYTES = 16 * 1024 * 1024
SIZE = 3 * PIECE_BYTES + 1234


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = dashboard.settings_for(tmp_path / "home")
    seeded.open_home(made.home).engine.dispose()
    return made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A server for all tests that do not kill it; each sends a model of its own."""
    made = dashboard.settings_for(tmp_path_factory.mktemp("shared"))
    seeded.open_home(made.home).engine.dispose()
    with dashboard.running(made) as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that becomes a model of the test's own: the page suggests the file's name."""
    made = tmp_path / f"{tmp_path.name.replace('_', '-')}.pt2"
    made.write_bytes(os.urandom(SIZE))
    return made


def upload_of(url: str, model: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        each for each in httpx.get(f"{url}/api/v1/uploads").json()["items"] if each["model_name"] == model
    )
    return found


def received(url: str, model: str) -> int:
    return int(upload_of(url, model)["received_bytes"])


class Gatekeeper:
    """Lets so many PATCH requests of the page through; the others wait until it is opened."""

    def __init__(self, page: Page, pieces: int) -> None:
        self._left = pieces
        self.waiting: list[Route] = []
        self._page = page
        page.route("**/api/v1/tus/*", self._decide)

    def _decide(self, route: Route) -> None:
        if route.request.method != "PATCH":
            route.continue_()
        elif self._left > 0:
            self._left -= 1
            route.continue_()
        else:
            self.waiting.append(route)

    def held(self) -> None:
        """Wait until a request waits."""
        for _ in range(600):
            if self.waiting:
                return
            self._page.wait_for_timeout(50)
        raise AssertionError("no request came")

    def open(self) -> None:
        """Let everything through from now on; what waits is cut, as by a lost connection."""
        self._left = sys.maxsize
        for route in self.waiting:
            with suppress(Error):  # the page gave up on it
                route.abort()
        self.waiting.clear()


def begin(page: Page, file: Path) -> None:
    page.locator("input#file").set_input_files(file)
    page.get_by_role("button", name="Upload", exact=True).click()


def checked(page: Page, url: str, home: Path, file: Path) -> None:
    """The upload is being checked, and what lies there is what was sent."""
    page.wait_for_url("**/upload?id=*", timeout=60_000)
    expect(page.get_by_text("Checked", exact=True)).to_be_visible()
    upload = upload_of(url, file.stem)
    assert upload["state"] == "checking"
    assert (home / "uploads" / upload["id"] / "files" / file.name).read_bytes() == file.read_bytes()


def test_pause_and_resume(shared: Dashboard, file: Path, open_tab: OpenTab) -> None:
    tab = open_tab(shared.url)
    page = tab.open("/upload")
    gate = Gatekeeper(page, pieces=1)
    begin(page, file)
    gate.held()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused at")).to_be_visible()
    gate.open()
    page.wait_for_timeout(1500)
    assert received(shared.url, file.stem) == PIECE_BYTES
    page.get_by_role("button", name="Resume").press("Enter")
    checked(page, shared.url, shared.settings.home, file)
    assert [error for error in tab.errors if "ERR_FAILED" not in error] == []
    assert tab.foreign == []


def test_a_reload_in_the_middle_goes_on_with_the_same_files(
    shared: Dashboard, file: Path, open_tab: OpenTab
) -> None:
    page = open_tab(shared.url).open("/upload")
    gate = Gatekeeper(page, pieces=2)
    begin(page, file)
    gate.held()
    gate.open()
    page.reload()
    arrived = received(shared.url, file.stem)
    assert 2 * PIECE_BYTES <= arrived < SIZE
    expect(page.get_by_role("heading", name="Unfinished")).to_be_visible()
    page.locator("input#file").set_input_files(file)
    expect(page.get_by_text("of this arrived earlier")).to_be_visible()
    expect(page.get_by_label("Model name")).to_be_disabled()
    page.get_by_role("button", name="Upload", exact=True).click()
    checked(page, shared.url, shared.settings.home, file)
    sent = httpx.get(f"{shared.url}/api/v1/uploads").json()["items"]
    assert [each["model_name"] for each in sent].count(file.stem) == 1


def test_a_server_killed_in_the_middle_and_started_again(
    settings: Settings, file: Path, open_tab: OpenTab
) -> None:
    with dashboard.running(settings) as shown:
        page = open_tab(shown.url).open("/upload")
        gate = Gatekeeper(page, pieces=1)
        begin(page, file)
        gate.held()
        shown.process.kill()
        shown.process.wait()
        gate.open()
        expect(page.get_by_text("Connection lost")).to_be_visible()
    with dashboard.running(settings) as shown:

        def arrived() -> bool:
            page.wait_for_timeout(200)
            return bool(upload_of(shown.url, file.stem)["state"] == "checking")

        wait_until(
            arrived,
            timeout_s=60,
            what=lambda: str(upload_of(shown.url, file.stem)),
        )
        upload = upload_of(shown.url, file.stem)
        placed = settings.home / "uploads" / upload["id"] / "files" / file.name
        assert placed.read_bytes() == file.read_bytes()


def test_a_file_that_changed_since_is_not_gone_on_with(
    shared: Dashboard, file: Path, open_tab: OpenTab
) -> None:
    page = open_tab(shared.url).open("/upload")
    gate = Gatekeeper(page, pieces=1)
    begin(page, file)
    gate.held()
    gate.open()
    upload = upload_of(shared.url, file.stem)
    page.goto(f"{shared.url}/upload?id={upload['id']}")
    expect(page.get_by_text("Choose the same files again")).to_be_visible()
    os.utime(file, ns=(1, 1))
    begin(page, file)
    expect(page.get_by_text("has changed since a part of it was sent")).to_be_visible()
    page.get_by_role("button", name="Cancel this upload").click()
    expect(page.get_by_text("Upload another")).to_be_visible()
    assert upload_of(shared.url, file.stem)["state"] == "cancelled"


def test_a_folder_arrives_with_its_paths(shared: Dashboard, tmp_path: Path, open_tab: OpenTab) -> None:
    top = tmp_path / "bert"
    (top / "inner").mkdir(parents=True)
    contents = {"config.json": b"{}", "inner/model.safetensors": os.urandom(70_000), "empty.txt": b""}
    for name, data in contents.items():
        (top / name).write_bytes(data)
    page = open_tab(shared.url).open("/upload")
    page.locator("input#folder").set_input_files(top)
    page.get_by_label("Model name").fill("bert")
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/upload?id=*")
    upload = upload_of(shared.url, "bert")
    placed = shared.settings.home / "uploads" / upload["id"] / "files"
    assert {name: (placed / name).read_bytes() for name in contents} == contents


def test_cancelling_removes_what_was_sent(shared: Dashboard, file: Path, open_tab: OpenTab) -> None:
    page = open_tab(shared.url).open("/upload")
    gate = Gatekeeper(page, pieces=1)
    begin(page, file)
    gate.held()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    gate.open()
    upload = wait_until(
        lambda: found if (found := upload_of(shared.url, file.stem))["state"] == "cancelled" else None,
        timeout_s=30,
        what=lambda: str(upload_of(shared.url, file.stem)),
    )
    wait_until(
        lambda: not (shared.settings.home / "uploads" / upload["id"]).exists(),
        timeout_s=10,
        what=lambda: "its folder",
    )


def test_a_refusal_is_explained_at_once(empty: Dashboard, open_tab: OpenTab, tmp_path: Path) -> None:
    small = tmp_path / "gone.pt"
    small.write_bytes(b"x" * 1000)
    page = open_tab(empty.url).open("/upload")
    cancelled: list[str] = []

    def cancel_first(route: Route) -> None:
        for each in httpx.get(f"{empty.url}/api/v1/uploads", params={"state": "receiving"}).json()["items"]:
            httpx.delete(f"{empty.url}/api/v1/uploads/{each['id']}")
            cancelled.append(each["id"])
        route.continue_()

    page.route("**/api/v1/tus", cancel_first)
    begin(page, small)
    expect(page.get_by_text("The upload is cancelled")).to_be_visible(timeout=5000)
    assert cancelled


def test_fetching_what_is_not_allowed_names_the_setting(empty: Dashboard, open_tab: OpenTab) -> None:
    page = open_tab(empty.url).open("/upload")
    page.get_by_text("From this machine or a bucket").click()
    page.get_by_role("textbox", name="Path or URL").fill("/etc/passwd")
    page.get_by_label("Becomes a version of").fill("m")
    page.get_by_role("button", name="Fetch").click()
    expect(page.get_by_text("SIGNALBOX_IMPORT_ROOTS").last).to_be_visible()
