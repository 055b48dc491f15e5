"""`up`, `web`, `controller`, `worker`, `migrate`: the commands that are processes of this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from control_plane import log
from control_plane.cli.command import Session, command
from control_plane.config import prepare_home


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    for function in (up, web, controller, worker, migrate):
        command(app)(function)


def up(session: Session) -> None:
    """Start everything on this machine and keep it running until Ctrl-C."""
    from control_plane.supervisor import up as supervision

    log.configure(session.settings.log_level, "up")
    running = supervision.up(session.settings, _say(session))
    if running is not None:
        session.out.line(supervision.already(running))
    where = {"web_url": session.settings.web_url, "gateway_url": session.settings.gateway_url}
    session.out.document({"already_running": running is not None, **where})


def web(session: Session) -> None:
    """Run the web process: dashboard and REST API."""
    from control_plane import web as web_process

    log.configure(session.settings.log_level, "web")
    prepare_home(session.settings)
    web_process.serve(session.settings)


def controller(session: Session) -> None:
    """Run a controller: it leads, or stands by until the leader is gone."""
    from control_plane.supervisor import controller_process

    log.configure(session.settings.log_level, "controller")
    controller_process.serve(session.settings)


def worker(session: Session) -> None:
    """Run the worker that carries out jobs."""
    from control_plane.jobs import worker as worker_process

    log.configure(session.settings.log_level, "worker")
    prepare_home(session.settings)
    worker_process.serve(session.settings)


def migrate(session: Session) -> None:
    """Bring the registry to the newest tables, and sign versions that nobody has signed."""
    from control_plane.registry import migrate as migration
    from control_plane.services import manifests
    from control_plane.services.context import open_context

    prepare_home(session.settings)
    migration.upgrade(session.settings.database)
    signed = manifests.sign_missing(open_context(session.settings))
    session.out.line(f"the registry is at revision {migration.head()}; {signed} versions signed")
    session.out.document({"revision": migration.head(), "signed": signed})


def _say(session: Session) -> Callable[[str], None]:
    """Lines of the supervisor: to people on stdout, in JSON mode on stderr."""

    def say(text: str) -> None:
        print(text, file=sys.stderr if session.out.as_json else sys.stdout, flush=True)

    return say
