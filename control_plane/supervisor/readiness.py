"""Whether the processes that were started do their work: web answers, a controller leads, Envoy serves."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from control_plane.config import Settings
from control_plane.errors import ConflictError, SignalboxError
from control_plane.gateway.base import Gateway
from control_plane.registry import leases, session

PROBE_TIMEOUT_S: Final = 1.0
PORT_PATIENCE_S: Final = 5.0
"""How long a port may still be held by the web process of a supervisor that was killed."""


def waiting_for(settings: Settings, engine: Engine, gateway: Gateway) -> tuple[str, ...]:
    """Roles that are not ready yet; empty when everything works."""
    checks: dict[str, Callable[[], bool]] = {
        "web": lambda: web_answers(settings.web_port),
        "controller": lambda: controller_leads(engine, time.time()),
        "envoy": lambda: gateway.observe().live,
    }
    return tuple(role for role, ready in checks.items() if not ready())


def web_answers(port: int) -> bool:
    """Whether GET /health on 127.0.0.1:*port* is answered 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def controller_leads(engine: Engine, now: float) -> bool:
    """Whether the leader's lease is in force."""
    try:
        with session.read(engine) as db:
            return leases.is_held(db, leases.CONTROLLER, now)
    except (SignalboxError, SQLAlchemyError):
        return False


def check_port(port: int, what: str, flag: str) -> None:
    """Raise ConflictError unless 127.0.0.1:*port* can be bound within a few seconds."""
    deadline = time.monotonic() + PORT_PATIENCE_S
    while not _free(port):
        if time.monotonic() > deadline or _listens(port):
            raise ConflictError(
                f"port {port} of 127.0.0.1, meant for {what}, is in use by another program",
                next_step=f"Stop that program, or choose another port with {flag}.",
            )
        time.sleep(0.1)  # the holder is not ours to wait for: there is no event


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _listens(port: int) -> bool:
    """Whether somebody answers there who is not about to go."""
    deadline = time.monotonic() + PORT_PATIENCE_S / 2
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.settimeout(PROBE_TIMEOUT_S)
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return False
        time.sleep(0.1)  # as above
    return True
