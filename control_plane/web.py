"""The web process: pages, REST, static files and health in one ASGI application.

It never loads a model and never runs long work: torch is not imported here.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import plotly
import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from control_plane import log
from control_plane.api import app as api
from control_plane.config import Settings, prepare_home
from control_plane.services import system
from control_plane.services.context import Context, open_context
from control_plane.ui import current, gate, theme
from control_plane.ui.components import speedscope_client, tus_client
from serving_agent.contract import proto

logger = logging.getLogger(__name__)

UI_DIR: Final = Path(__file__).parent / "ui"
PLOTLY_JS: Final = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
CACHE_FOREVER: Final = "public, max-age=31536000, immutable"
CACHE_A_DAY: Final = "public, max-age=86400"
_WARM: Final = (
    "pandas", "pyarrow", "pages._ui.endpoint_detail", "pages._ui.version_detail", "pages._ui.debugger_run",
    "control_plane.services.live",
    "control_plane.services.uploads", "control_plane.services.versions", "control_plane.services.endpoints",
)  # fmt: skip
"""What pages import on first use: imported before the garbage collector is told to forget it."""


def create_app(settings: Settings) -> st.App:
    """The ASGI application: `/` pages, `/api/v1` REST, `/assets`, `/health` and `/ready`.

    Opens the registry that *settings* name; one application a process.
    """
    prepare_home(settings)
    ctx = open_context(settings)
    current.use(ctx)
    _make_pages_importable()
    return st.App(
        UI_DIR / "main.py",
        routes=_routes(ctx),
        middleware=[Middleware(gate.Gate)],
        lifespan=_lifespan,
        on_script_error=_report_script_error,
    )


def streamlit_options(settings: Settings) -> dict[str, Any]:
    """Streamlit's configuration, by dotted name; passed to `App.run`, since environment variables and
    config files of the machine must not change how the dashboard behaves."""
    return {
        "server.address": "127.0.0.1",
        "server.port": settings.web_port,
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.allowedHosts": sorted(gate.LOOPBACK_HOSTS),
        "server.enableStaticServing": False,
        "server.maxUploadSize": 16,  # megabytes, of inputs to debug; checkpoints go to REST, straight to disk
        "runner.magicEnabled": False,
        "runner.postScriptGC": False,
        "client.showErrorDetails": "none",
        "client.toolbarMode": "minimal",
        "browser.gatherUsageStats": False,
        **theme.options(),
    }


def serve(settings: Settings) -> None:
    """Run the web process on 127.0.0.1:web_port until SIGINT or SIGTERM."""
    log.configure(settings.log_level, "web")
    create_app(settings).run(config=streamlit_options(settings))


def _make_pages_importable() -> None:
    """The page scripts are files beside the package; they share drawing code under `pages._ui`."""
    root = str(UI_DIR.parents[1])
    if root not in sys.path:
        sys.path.append(root)


def _routes(ctx: Context) -> list[BaseRoute]:
    return [
        Route("/health", partial(_health, ctx)),
        Route("/ready", partial(_health, ctx)),
        Mount("/api/v1", api.create_api(ctx)),
        Route("/assets/plotly.min.js", partial(_script, PLOTLY_JS, plotly.__version__)),
        Route("/assets/tus.min.js", partial(_script, tus_client.SCRIPT, tus_client.VERSION)),
        Route("/assets/open_inference.pb", _protocol),
        Mount(speedscope_client.ROUTE, _Assets(directory=speedscope_client.FOLDER)),
        Mount("/assets", _Assets(directory=UI_DIR / "assets")),
    ]


async def _health(ctx: Context, _request: Request) -> Response:
    """200 `{"status": "ok", "registry": "ok"}`, or 503 with what is wrong. Always JSON, never cached."""
    try:
        body = await asyncio.to_thread(system.health, ctx)
    except Exception:
        logger.exception("the registry does not answer")
        body = {"status": "unavailable", "registry": "The registry does not answer."}
    return JSONResponse(body, 200 if body["status"] == "ok" else 503, headers={"Cache-Control": "no-store"})


async def _script(file: Path, version: str, request: Request) -> Response:
    """A vendored script; cached for ever when asked for by version (`?v=`)."""
    cache = CACHE_FOREVER if request.query_params.get("v") == version else CACHE_A_DAY
    return FileResponse(file, media_type="text/javascript", headers={"Cache-Control": cache})


async def _protocol(_request: Request) -> Response:
    """The Open Inference Protocol's descriptor set, which grpcurl and generic gRPC clients need."""
    return FileResponse(
        proto.DESCRIPTOR_FILE, media_type="application/octet-stream", headers={"Cache-Control": CACHE_A_DAY}
    )


class _Assets(StaticFiles):
    """What browsers load; names do not change with content, or not always, so a day's cache."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = CACHE_A_DAY
        return response


@asynccontextmanager
async def _lifespan(_app: st.App) -> AsyncIterator[dict[str, Any]]:
    await asyncio.to_thread(_warm_up)
    yield {}


def _warm_up() -> None:
    """Import what pages need, then take it out of the garbage collector's sight.

    A full collection after these imports takes about 100 ms and holds up every session of the process.
    """
    for name in _WARM:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _report_script_error(error: Exception) -> bool:
    """Log an error that no page expected and show its id in place of a traceback."""
    error_id = uuid.uuid4().hex[:8]
    logger.error("page error %s", error_id, exc_info=error)
    st.error(f"Something went wrong. The log of the web process holds the cause under {error_id}.")
    return True


if __name__ == "__main__":
    serve(Settings())
