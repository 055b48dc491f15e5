"""The processes that `signalbox up` looks after: how each is started, and when it is started again."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from control_plane.config import Settings
from control_plane.domain import backoff
from control_plane.gateway import envoy_process
from control_plane.platforms import log_files

OWN_ROLES: Final = ("web", "controller", "worker")
"""Processes of this package: they end when the supervisor is gone."""
ENVOY: Final = "envoy"
ROLES: Final = (ENVOY, *OWN_ROLES)
STABLE_S: Final = 10.0
"""A process that lived this long is started again at once when it ends."""

OnExit = Callable[[str, int, int | None], None]
"""Called with role, pid and exit code (None where unknown), from a thread of its own."""


@dataclass
class Child:
    """One supervised process, over all its restarts."""

    role: str
    log: Path
    pid: int | None = None
    started_at: float = 0.0
    """time.monotonic() of the last start."""
    failures: int = 0
    """Short lives in a row."""
    due_at: float | None = field(default=0.0)
    """time.monotonic() at which it is to be started; None while it runs."""
    adopted: bool = False

    def ended(self, now: float) -> float:
        """Note that it ended; return the seconds until it is to be started again."""
        self.failures = 0 if now - self.started_at >= STABLE_S else self.failures + 1
        pause_s = backoff.pause_s(self.failures)
        self.pid, self.due_at, self.adopted = None, now + pause_s, False
        return pause_s

    def began(self, pid: int, now: float) -> None:
        """Note that it runs."""
        self.pid, self.started_at, self.due_at = pid, now, None


def start(child: Child, settings: Settings, on_exit: OnExit) -> None:
    """Start the process of *child*, or adopt the Envoy that runs. Raises UnavailableError or OSError."""
    if child.role == ENVOY:
        envoy_process.prepare_files(settings)
        running = envoy_process.find_running(settings)
        if running is not None:
            child.began(running, time.monotonic())
            child.adopted = True
            _in_background(_wait_for_adopted, child.role, running, on_exit)
            return
    command = envoy_process.command(settings) if child.role == ENVOY else own_command(child.role)
    process = _spawn(command, child.log, settings)
    child.began(process.pid, time.monotonic())
    _in_background(_wait_for_child, child.role, process, on_exit)


def own_command(role: str) -> list[str]:
    """The command line of one of our own processes; settings travel in its environment."""
    return [sys.executable, "-m", "control_plane.supervisor.child", str(os.getpid()), role]


def _spawn(command: list[str], log: Path, settings: Settings) -> subprocess.Popen[bytes]:
    """In a session of its own: a Ctrl-C at the terminal must reach the supervisor alone."""
    log_files.bound(log)
    output = log_files.open_for(log)
    try:
        return subprocess.Popen(  # noqa: S603  our own commands
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=settings.child_environment(),
            start_new_session=True,
        )
    finally:
        os.close(output)


def _in_background(wait: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=wait, args=arguments, daemon=True).start()


def _wait_for_child(role: str, process: subprocess.Popen[bytes], on_exit: OnExit) -> None:
    on_exit(role, process.pid, process.wait())


def _wait_for_adopted(role: str, pid: int, on_exit: OnExit) -> None:
    """Another supervisor's child: its exit code is not ours to know."""
    if hasattr(os, "pidfd_open"):
        with suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            select.select([handle], [], [])
            os.close(handle)
    else:
        with suppress(psutil.NoSuchProcess):
            psutil.wait_procs([psutil.Process(pid)])
    on_exit(role, pid, None)
