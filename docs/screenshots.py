"""Make the pictures of docs/images from the real thing.

Starts Signalbox on a temporary home, loads the example, deploys it, sends it traffic for a while, and takes
pictures of the pages in both themes: `python docs/screenshots.py`. Needs playwright and a Chromium browser.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from control_plane.config import Settings

IMAGES = Path(__file__).parent / "images"
MOST_BYTES = 300_000
TRAFFIC_S = 150
"""How long traffic flows before the live page is worth a picture, in seconds."""
ROLLOUT_S = 60
"""How long of that a rollout runs, in seconds."""
TIMEOUT_S = 120
SEARCH = "3m"
"""How long autotune may search for the pictures of the optimisation lab."""
SEARCH_S = 420
"""How long it may take with its last trial and the queue."""
ENDPOINT = "digits"


def main() -> None:
    """Make every picture anew."""
    with (
        tempfile.TemporaryDirectory(prefix="sb-") as home,
        running(_settings(Path(home))) as settings,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=_chromium(), args=["--no-sandbox"])
        picture(browser, settings, "first_steps", "/", "light")
        prepare(settings)
        optimization(browser, settings)
        with traffic(settings):
            time.sleep(TRAFFIC_S - ROLLOUT_S)
            draft = f"/rollouts?new={ENDPOINT}&candidate=digits@2"
            picture(browser, settings, "rollout_draft", draft, "light", predicted)
            _signalbox(settings, "rollout", "start", ENDPOINT, "digits@2", "--steps", "0.25,0.5,1.0")
            time.sleep(ROLLOUT_S)
            pictures(browser, settings)
        browser.close()


def pictures(browser: Browser, settings: Settings) -> None:
    """Every page worth showing."""
    for scheme in ("light", "dark"):
        picture(browser, settings, f"rollout_{scheme}", f"/rollouts?id={ENDPOINT}", scheme, charts)
        picture(browser, settings, f"live_{scheme}", "/live?range=5+min", scheme, charts)
    picture(browser, settings, "rollouts", "/rollouts", "light")
    picture(browser, settings, "overview", "/", "light")
    picture(browser, settings, "endpoint", f"/endpoints?name={ENDPOINT}", "light")
    picture(browser, settings, "playground", f"/endpoints?name={ENDPOINT}&tab=Playground", "light", predict)
    picture(browser, settings, "version", "/versions?id=digits@2", "light")


def optimization(browser: Browser, settings: Settings) -> None:
    """The lab's form, and a search that has ended; before there is traffic, which would disturb it."""
    picture(
        browser,
        settings,
        "optimization_form",
        "/optimization?version=digits@1&method=onnx-static-int8",
        "light",
    )
    _signalbox(settings, "autotune", "digits@1", "--budget", SEARCH, timeout_s=SEARCH_S)
    found = httpx.get(f"{settings.web_url}/api/v1/jobs", params={"kind": "autotune"}).json()
    job = _items(found)[0]["id"]
    for scheme in ("light", "dark"):
        picture(browser, settings, f"optimization_{scheme}", f"/optimization?job={job}", scheme, points)


def points(page: Page) -> None:
    """Wait until the chart has a point."""
    page.locator(".sbo-chart path.point").first.wait_for()


def charts(page: Page) -> None:
    """Wait until a chart has a line."""
    page.locator(".scatterlayer path.js-line").first.wait_for()


def predicted(page: Page) -> None:
    """Wait until a draft's prediction is there."""
    page.locator(".st-key-draft-predicted .sb-table").first.wait_for()


def predict(page: Page) -> None:
    """Pick an example and run it."""
    page.get_by_role("option").nth(6).click()
    page.get_by_role("button", name="Run").click()
    page.locator(".sb-bars").wait_for()


def picture(
    browser: Browser,
    settings: Settings,
    name: str,
    path: str,
    scheme: str,
    act: Callable[[Page], None] | None = None,
) -> None:
    """Open *path* in *scheme*, do *act*, and write docs/images/<name>.png."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]  # "light" or "dark"
    page = context.new_page()
    page.goto(settings.web_url + path)
    page.wait_for_selector('[data-testid="stHeading"], .sb-head')
    if act is not None:
        act(page)
    page.wait_for_function("!document.querySelector('[data-testid=stStatusWidget]')")
    page.wait_for_timeout(1500)  # transitions
    target = IMAGES / f"{name}.png"
    page.screenshot(path=target)
    context.close()
    if target.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{target} is larger than {MOST_BYTES} bytes")


def prepare(settings: Settings) -> None:
    """Load the example and deploy its first version with two replicas."""
    _signalbox(settings, "example")
    _signalbox(settings, "deploy", ENDPOINT, "digits@1", "--replicas", "2")


@contextmanager
def traffic(settings: Settings) -> Iterator[None]:
    """Send examples to the endpoint until the block ends."""
    examples = httpx.get(f"{settings.web_url}/api/v1/models/digits/versions/1/examples").json()
    bodies = [{"input": [example["inputs"]["image"]]} for example in _items(examples)]
    done = threading.Event()
    clients = [threading.Thread(target=_send, args=(settings, bodies, done, i)) for i in range(2)]
    for client in clients:
        client.start()
    try:
        yield
    finally:
        done.set()
        for client in clients:
            client.join()


def _items(answer: Any) -> list[dict[str, Any]]:
    return list(answer["items"] if isinstance(answer, dict) else answer)


def _send(settings: Settings, bodies: list[dict[str, Any]], done: threading.Event, offset: int) -> None:
    url = f"{settings.gateway_url}/e/{ENDPOINT}/predict"
    with httpx.Client(timeout=30) as client:
        for i in range(offset, 10**9):
            if done.wait(0.02 + 0.015 * (i // 150 % 3)):
                return
            client.post(url, json=bodies[i % len(bodies)])


@contextmanager
def running(settings: Settings) -> Iterator[Settings]:
    """`signalbox up` until the block ends."""
    command = [sys.executable, "-m", "control_plane", "up"]
    process = subprocess.Popen(command, env=settings.child_environment())  # noqa: S603  our own program
    try:
        _wait_for(settings)
        yield settings
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(TIMEOUT_S)


def _wait_for(settings: Settings) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            status = httpx.get(f"{settings.web_url}/api/v1/status").json()
        except httpx.TransportError:
            status = {}
        if (status.get("controller"), status.get("gateway")) == ("leading", "serving"):
            return
        time.sleep(0.2)
    raise SystemExit("Signalbox did not start")


def _signalbox(settings: Settings, *arguments: str, timeout_s: float = TIMEOUT_S) -> None:
    command = [sys.executable, "-m", "control_plane", *arguments]
    environment = settings.child_environment()
    subprocess.run(command, env=environment, check=True, timeout=timeout_s)  # noqa: S603  our own program


def _settings(home: Path) -> Settings:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return Settings(home=home, web_port=one.getsockname()[1], gateway_port=two.getsockname()[1])


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("google-chrome")


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    main()
