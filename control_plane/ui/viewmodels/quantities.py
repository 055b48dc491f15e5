"""Numbers, sizes, times and digests in words, always with their unit."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

NOTHING: Final = "–"
"""Shown where there is no value, so that no data never looks like zero."""
_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_AGES: Final = ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h"))
_SECONDS_A_DAY: Final = 86400


def size(size_bytes: float) -> str:
    """A size in binary units with three significant figures: 35840 → "35 KiB"."""
    value = float(size_bytes)
    for unit in _SIZES[:-1]:
        if value < 1023.5:
            return f"{_three_figures(value)} {unit}"
        value /= 1024
    return f"{_three_figures(value)} {_SIZES[-1]}"


def _three_figures(value: float) -> str:
    decimals = 0 if value >= 99.95 or value == int(value) else 1 if value >= 9.995 else 2
    return f"{value:.{decimals}f}"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: (1, "agent") → "1 agent", (1200, "agent") → "1,200 agents"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """A span of time: 0.043 → "43 ms", 2.31 → "2.3 s", 75 → "1 min 15 s", 7300 → "2 h 1 min"."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return _two_parts(whole, 60, "min", 1, "s")
    if whole < _SECONDS_A_DAY:
        return _two_parts(whole, 3600, "h", 60, "min")
    return _two_parts(whole, _SECONDS_A_DAY, "d", 3600, "h")


def _two_parts(whole: int, big: int, big_unit: str, small: int, small_unit: str) -> str:
    rest = whole % big // small
    return f"{whole // big} {big_unit}" + (f" {rest} {small_unit}" if rest else "")


def duration_ms(seconds: float) -> str:
    """A short span with three significant figures: 0.00123 → "1.23 ms", 0.0482 → "48.2 ms"; seconds above."""
    return f"{_three_figures(seconds * 1000)} ms" if seconds < 0.9995 else duration(seconds)


def ago(at: float, now: float) -> str:
    """How long before *now* (both UTC seconds) something was: "just now", "40 s ago", "3 d ago"."""
    age = max(0.0, now - at)
    if age < 5:
        return "just now"
    for limit, divisor, unit in _AGES:
        if age < limit:
            return f"{int(age // divisor)} {unit} ago"
    return f"{int(age // _SECONDS_A_DAY)} d ago"


def clock(at: float, zone: str | None = None) -> str:
    """Date and time of *at* (UTC seconds) in *zone* (IANA name), or in UTC and labelled so."""
    moment, label = _moment(at, zone)
    return f"{moment:%Y-%m-%d %H:%M:%S}{label}"


def short_clock(at: float, zone: str | None = None) -> str:
    """Like `clock` without date and seconds: "14:02", or "14:02 UTC" when the zone is not known."""
    moment, label = _moment(at, zone)
    return f"{moment:%H:%M}{label}"


def _moment(at: float, zone: str | None) -> tuple[datetime, str]:
    try:
        if zone:
            return datetime.fromtimestamp(at, ZoneInfo(zone)), ""
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass  # a browser may name a zone this machine does not know: UTC, and say so
    return datetime.fromtimestamp(at, UTC), " UTC"


def digest(full: str) -> str:
    """A digest short enough for a table: "sha256:30df4e848acf"."""
    kind, colon, value = full.partition(":")
    return f"{kind}{colon}{value[:12]}" if colon else full[:12]


def milliseconds(value: float | None) -> str:
    """A latency given in milliseconds: 1.234 → "1.23 ms", 48.2 → "48.2 ms"."""
    return NOTHING if value is None else f"{_three_figures(value)} ms"


def rate(value: float | None) -> str:
    """Requests per second: 412.0 → "412/s"; one figure after the point when small."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}/s" if value >= 100 else f"{value:.1f}/s"


def share(value: float | None) -> str:
    """A share in [0, 1] as a percentage: 0.0012 → "0.12 %"."""
    if value is None:
        return NOTHING
    percent = value * 100
    return "0 %" if percent == 0 else f"{_three_figures(percent)} %" if percent >= 0.01 else "< 0.01 %"
