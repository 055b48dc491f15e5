"""Waiting for a condition of another process, with a bound and a message that says what was seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

PATIENCE: Final = 3.0


def wait_until(
    look: Callable[[], T | None], *, timeout_s: float, what: Callable[[], str], pause_s: float = 0.05
) -> T:
    """Call *look* until it answers something true and return that; fail with `what()` when it does not.

    timeout_s: how long it may take on a machine that does nothing else; others share it, so more is waited.
    """
    deadline = time.monotonic() + PATIENCE * timeout_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE * timeout_s} s: {what()}")
        time.sleep(pause_s)
