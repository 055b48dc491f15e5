"""The web process: health, headers, who may talk to it, what it serves and what it never imports."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets
import websockets.exceptions
from starlette.requests import Request

from control_plane import web
from control_plane.config import Settings
from control_plane.registry import migrate
from control_plane.services.context import open_context
from tests.fakes import dashboard, seeded
from tests.fakes.dashboard import Dashboard

HEAVY = ("torch", "transformers", "sklearn", "grpc", "tritonclient")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    settings = dashboard.settings_for(tmp_path_factory.mktemp("home"))
    seeded.open_home(settings.home).engine.dispose()
    with dashboard.running(settings) as running:
        yield running


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_health_is_json_and_never_cached(shown: Dashboard, path: str) -> None:
    answer = httpx.get(shown.url + path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "registry": "ok"})
    assert answer.headers["cache-control"] == "no-store"


async def test_health_says_what_is_wrong_with_the_registry(tmp_path: Path) -> None:
    ctx = open_context(Settings(home=tmp_path))
    answer = await web._health(ctx, Request({"type": "http"}))
    assert answer.status_code == 503
    assert "signalbox migrate" in json.loads(bytes(answer.body))["registry"]
    ctx.engine.dispose()


@pytest.mark.parametrize("path", ["/", "/endpoints", "/health", "/api/v1/versions", "/assets/plotly.min.js"])
def test_every_answer_carries_the_security_headers(shown: Dashboard, path: str) -> None:
    answer = httpx.get(shown.url + path)
    assert answer.status_code == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_foreign_host_names_are_refused(shown: Dashboard) -> None:
    answer = httpx.get(f"{shown.url}/api/v1/versions", headers={"host": "evil.example"})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "forbidden"


@pytest.mark.parametrize("headers", [{"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}])
def test_foreign_pages_cannot_write(shown: Dashboard, headers: dict[str, str]) -> None:
    body = {"kind": "example"}
    assert httpx.post(f"{shown.url}/api/v1/jobs", json=body, headers=headers).status_code == 403
    assert httpx.get(f"{shown.url}/api/v1/jobs").json()["total"] == 0


async def test_foreign_pages_cannot_open_the_websocket(shown: Dashboard) -> None:
    address = shown.url.replace("http", "ws") + "/_stcore/stream"
    with pytest.raises(websockets.exceptions.InvalidStatus):
        async with websockets.connect(address, origin=websockets.Origin("http://evil.example")):
            pass
    async with websockets.connect(address, origin=websockets.Origin(shown.url)) as own:
        assert own.state.name == "OPEN"


def test_assets(shown: Dashboard) -> None:
    plotly = httpx.get(f"{shown.url}/assets/plotly.min.js", params={"v": web.plotly.__version__})
    assert plotly.headers["cache-control"] == web.CACHE_FOREVER
    assert len(plotly.content) > 1_000_000
    font = httpx.get(f"{shown.url}/assets/fonts/inter-latin-wght-normal.woff2")
    assert font.content[:4] == b"wOF2"
    assert httpx.get(f"{shown.url}/assets/../main.py").text != (web.UI_DIR / "main.py").read_text("utf-8")
    assert httpx.get(f"{shown.url}/assets/%2e%2e/main.py").status_code in {200, 400, 404}
    assert "set_page_config" not in httpx.get(f"{shown.url}/assets/%2e%2e/main.py").text


def test_the_protocols_descriptor_is_served(shown: Dashboard) -> None:
    assert b"GRPCInferenceService" in httpx.get(f"{shown.url}/assets/open_inference.pb").content


def test_live_data_is_json_and_compact(shown: Dashboard) -> None:
    bundle = httpx.get(f"{shown.url}/api/v1/live", params={"range_s": 300}).json()
    assert {panel["id"] for panel in bundle["panels"]} >= {"request_rate", "latency_p99", "host_memory"}


def test_health_stays_quick_beside_many_requests(shown: Dashboard) -> None:
    async def load() -> float:
        async with httpx.AsyncClient() as client:
            busy = [client.get(f"{shown.url}/api/v1/versions") for _ in range(40)]
            probe = client.get(f"{shown.url}/health")
            answers = await asyncio.gather(probe, *busy)
        assert all(answer.status_code == 200 for answer in answers)
        return answers[0].elapsed.total_seconds()

    assert asyncio.run(load()) < 5


def test_no_model_library_is_imported() -> None:
    program = (
        "import sys, pathlib, importlib\n"
        "from control_plane import web\n"
        "for name in web._WARM: importlib.import_module(name)\n"
        "for path in sorted(pathlib.Path('pages/_ui').glob('*.py')):\n"
        "    importlib.import_module(f'pages._ui.{path.stem}')\n"
        "for path in sorted(pathlib.Path('control_plane/services').glob('*.py')):\n"
        "    importlib.import_module(f'control_plane.services.{path.stem}')\n"
        "from control_plane.services import catalogs\n"
        "catalogs.formats(), catalogs.job_kinds()\n"
        f"print(sorted(set(sys.modules) & set({HEAVY!r})))\n"
    )
    root = web.UI_DIR.parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_it_stops_on_sigterm_with_a_viewer_connected(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = dashboard.settings_for(tmp_path_factory.mktemp("home"))
    migrate.upgrade(settings.database)

    async def view() -> int:
        with dashboard.running(settings) as running:
            address = running.url.replace("http", "ws") + "/_stcore/stream"
            async with websockets.connect(address, origin=websockets.Origin(running.url)):
                running.process.terminate()
                return await asyncio.to_thread(running.process.wait, 15)

    assert asyncio.run(view()) in {0, -15, 143}
