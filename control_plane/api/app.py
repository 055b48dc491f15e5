"""The REST API, mounted by the web process at /api/v1."""

from __future__ import annotations

from typing import Final

from fastapi import FastAPI
from fastapi.routing import APIRoute

from control_plane.api import errors, guard, pouring
from control_plane.api.routes import (
    debugger,
    endpoints,
    freeze_windows,
    golden_sets,
    jobs,
    nemo_rl,
    optimization,
    profiles,
    rollouts,
    system,
    tus,
    uploads,
    versions,
    webhooks,
)
from control_plane.services.context import Context

_MODULES: Final = (
    versions, uploads, tus, nemo_rl, jobs, optimization, debugger, profiles, endpoints, rollouts,
    freeze_windows, webhooks, golden_sets, system,
)  # fmt: skip
"""In the order of the reference page."""


def create_api(ctx: Context) -> FastAPI:
    """The API on *ctx*, an ASGI application to be mounted at /api/v1.

    The description is at /openapi.json below the mount point. Pages that draw it are off: they load scripts
    from elsewhere.
    """
    api = FastAPI(
        title="Signalbox",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
    )
    api.state.context = ctx
    api.state.pouring = pouring.Pouring()
    api.add_middleware(guard.Guard)
    errors.install(api)
    for module in _MODULES:
        api.include_router(module.router)
    return api


def _operation_id(route: APIRoute) -> str:
    return route.name
