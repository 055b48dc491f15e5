"""Freeze windows: times in which nothing is promoted. Pure; times are UTC seconds since the epoch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from control_plane.errors import InvalidInputError

WEEK_S: Final = 7 * 24 * 3600.0
MAX_WINDOW_S: Final = 366 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One window, from `starts_at` up to and without `ends_at`."""

    id: str
    endpoint: str | None
    """None: every endpoint."""
    starts_at: float
    ends_at: float
    weekly: bool
    """Whether it comes again every seven days, from its first time on."""
    reason: str

    def end_at(self, now: float) -> float | None:
        """When the occurrence that *now* lies in ends; None when it lies in none."""
        if now < self.starts_at:
            return None
        weeks = (now - self.starts_at) // WEEK_S if self.weekly else 0.0
        end = self.ends_at + weeks * WEEK_S
        return end if now < end else None


def active(windows: Iterable[Window], endpoint: str, now: float) -> Window | None:
    """The window that freezes *endpoint* at *now*, the one that lasts longest; None: it is not frozen."""
    ends = [
        (end, window)
        for window in windows
        if window.endpoint in (None, endpoint) and (end := window.end_at(now)) is not None
    ]
    return max(ends, key=lambda each: (each[0], each[1].id))[1] if ends else None


def told(window: Window, now: float) -> str:
    """The window in one sentence: `frozen until 2026-01-01 08:00 UTC: year's end`."""
    end = window.end_at(now) or window.ends_at
    return f"frozen until {datetime.fromtimestamp(end, UTC):%Y-%m-%d %H:%M} UTC: {window.reason}"


def check(starts_at: float, ends_at: float, *, weekly: bool) -> None:
    """Raise InvalidInputError unless the window has a beginning and a later end, not too far apart."""
    longest = WEEK_S if weekly else MAX_WINDOW_S
    if not 0 <= starts_at < 1e11:  # not a number is in no range; the year 5138 is far enough
        raise InvalidInputError("the window's start is no time")
    if not 0 < ends_at - starts_at <= longest:
        raise InvalidInputError(
            "the window must end after it starts, "
            + ("within seven days" if weekly else "within 366 days")
            + (" as it comes every week" if weekly else "")
        )
