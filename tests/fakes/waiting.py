"""Waiting for a condition of another process, with a bound and a message that says what was seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(
    look: Callable[[], T | None], *, timeout_s: float, what: Callable[[], str], pause_s: float = 0.05
) -> T:
    """Call *look* until it answers something true and return that; fail with `what()` after *timeout_s*."""
    deadline = time.monotonic() + timeout_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what()}")
        time.sleep(pause_s)
