"""The web process alone, really running on a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control_plane.config import Settings
from tests.fakes.stack import free_ports
from tests.fakes.waiting import wait_until

START_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A web process: where it listens, what it works on, and which process it is."""

    url: str
    settings: Settings
    process: subprocess.Popen[bytes]
    log: Path


def settings_for(home: Path, **changes: Any) -> Settings:
    """Settings on free ports; nothing listens on the gateway's."""
    web_port, gateway_port = free_ports(2)
    return Settings(home=home, web_port=web_port, gateway_port=gateway_port, disk_floor=0.0, **changes)


@contextmanager
def running(settings: Settings) -> Iterator[Dashboard]:
    """Run the web process until the block ends; it must have stopped by itself on SIGTERM then."""
    log = settings.root / "web-under-test.log"
    command = [sys.executable, "-m", "control_plane.web"]
    environment = {**os.environ, **settings.child_environment()}
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)
    shown = Dashboard(settings.web_url, settings, process, log)
    try:
        wait_until(lambda: _healthy(shown), timeout_s=START_TIMEOUT_S, what=log.read_text)
        yield shown
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        finally:
            process.kill()
            process.wait()


def _healthy(shown: Dashboard) -> bool:
    if shown.process.poll() is not None:
        raise AssertionError(shown.log.read_text())
    try:
        with urllib.request.urlopen(f"{shown.url}/health", timeout=2) as answer:
            return bool(json.load(answer)["status"] == "ok")
    except OSError:
        return False
