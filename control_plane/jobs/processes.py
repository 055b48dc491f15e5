"""Processes named once and for all: by pid and creation time."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final

import psutil

SAME_START_S: Final = 0.05
"""Creation times of one process, read twice, differ by less than this."""


def started_at(pid: int) -> float | None:
    """Return when the process was created, in UTC seconds since the epoch; None if there is none."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def is_alive(pid: int, created_at: float) -> bool:
    """Tell whether that very process exists and still runs (a zombie does not)."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created_at) < SAME_START_S
        return same and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False


def kill_session(pid: int) -> None:
    """Kill the process, the group it leads and its descendants in sessions of their own. Idempotent."""
    descendants = _descendants(pid)
    _kill_group(pid)
    for process in descendants:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def death_sentence(exit_code: int) -> str:
    """Say in words how a process ended that told nothing itself; *exit_code* as subprocess gives it."""
    if exit_code >= 0:
        return f"its process ended with exit code {exit_code}"
    name = signal.Signals(-exit_code).name if -exit_code in signal.valid_signals() else str(-exit_code)
    if exit_code == -signal.SIGKILL:
        return "its process was killed by hand or because the machine ran out of memory (SIGKILL)"
    return f"its process crashed ({name})"
