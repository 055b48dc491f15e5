"""Live page: time ranges, and the table that says the same as the charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from control_plane.ui.viewmodels import quantities

RANGES: Final = {"5 min": 300, "15 min": 900, "1 h": 3600, "6 h": 21600, "24 h": 86400}
"""Time ranges on offer: words to seconds."""
DEFAULT_RANGE: Final = "15 min"


def range_seconds(word: str | None) -> int:
    """Seconds of a range named in an address; the default one for anything unknown."""
    return RANGES.get(word or "", RANGES[DEFAULT_RANGE])


def latest_rows(bundle: Mapping[str, Any]) -> list[dict[str, str]]:
    """The newest value of every line and its largest one in the range, with units."""
    return [
        {
            "Series": panel["title"],
            "Of": line["name"],
            "Now": _shown(_last(line["y"]), panel["unit"]),
            "Highest": _shown(_highest(line["y"]), panel["unit"]),
        }
        for panel in bundle.get("panels", ())
        for line in panel["lines"]
    ]


def _last(values: list[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _highest(values: list[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _shown(value: float | None, unit: str) -> str:
    if value is None:
        return quantities.NOTHING
    if unit == "bytes":
        return quantities.size(value)
    if unit == "share":
        return quantities.share(value)
    if unit == "s":
        return quantities.milliseconds(value * 1000)
    return f"{value:,.4g} {unit}".rstrip()
