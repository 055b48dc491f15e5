"""Ties processes to each other by Linux's prctl(2); does nothing on systems without it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def end_with(parent_pid: int) -> None:
    """Let this process get SIGTERM when its parent, *parent_pid*, is gone: also when that was killed.

    Raises SystemExit when the parent is gone already.
    """
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent_pid:
        raise SystemExit(0)


def adopt_orphans() -> None:
    """Become the parent of what this process's children leave behind, so that it can be reaped."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
