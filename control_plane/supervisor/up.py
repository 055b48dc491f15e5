"""The way into `signalbox up`: one at a time, ports free, registry current, then the loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime

from control_plane.config import Settings, prepare_home
from control_plane.gateway import envoy_process
from control_plane.gateway.envoy import EnvoyGateway
from control_plane.platforms import catalog
from control_plane.registry import migrate, session
from control_plane.services import manifests, rejudging
from control_plane.services.context import Context
from control_plane.supervisor.lock import Running, UpLock
from control_plane.supervisor.readiness import check_port
from control_plane.supervisor.supervisor import Supervisor


def up(settings: Settings, say: Callable[[str], None]) -> Running | None:
    """Run everything until told to stop; return who runs it already, if somebody does.

    Raises ConflictError when a port is taken or the registry is newer than this program.
    """
    prepare_home(settings)
    me = Running(os.getpid(), time.time(), settings.web_url, settings.gateway_url)
    with UpLock(settings.run_dir / "up.lock", me) as lock:
        if lock.holder is not None:
            return lock.holder
        check_port(settings.web_port, "the dashboard", "--web-port or SIGNALBOX_WEB_PORT")
        if envoy_process.find_running(settings) is None:
            check_port(settings.gateway_port, "the gateway", "--gateway-port or SIGNALBOX_GATEWAY_PORT")
        migrate.upgrade(settings.database)
        engine = session.open_engine(settings.database)
        try:
            _catch_up(Context(settings, engine))
            platform = catalog.create("local", settings)
            Supervisor(settings, engine, EnvoyGateway(settings), platform, say).run()
        finally:
            engine.dispose()
    return None


def _catch_up(ctx: Context) -> None:
    """Do for versions of before what newer ones get when they are registered."""
    manifests.sign_missing(ctx)
    rejudging.queue_due(ctx)


def already(running: Running) -> str:
    """Say what runs already."""
    since = datetime.fromtimestamp(running.since).astimezone()
    return (
        f"Signalbox runs already: pid {running.pid}, since {since:%Y-%m-%d %H:%M:%S %Z}.\n"
        f"dashboard  {running.web_url}\ngateway    {running.gateway_url}"
    )
