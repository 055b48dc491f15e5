"""Activity: audit records as rows and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any, Final

from control_plane.domain.views import EventView
from control_plane.ui.viewmodels import quantities

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


def rows(events: Iterable[EventView], zone: str | None) -> list[dict[str, Any]]:
    """Rows of the events' table."""
    return [
        {
            "When": quantities.clock(event.at, zone),
            "Who": event.actor,
            "What": event.message,
            "Subject": event.subject,
            "Action": event.action,
        }
        for event in events
    ]


def as_csv(events: Iterable[EventView]) -> str:
    """Events as CSV (RFC 4180), times in UTC (ISO 8601).

    A cell that a spreadsheet would take for a formula gets a leading apostrophe (OWASP: CSV injection).
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("id", "at_utc", "actor", "action", "subject", "message"))
    for event in events:
        at = quantities.clock(event.at).removesuffix(" UTC").replace(" ", "T") + "Z"
        writer.writerow(
            (event.id, at, *map(_safe, (event.actor, event.action, event.subject, event.message)))
        )
    return out.getvalue()


def _safe(cell: str) -> str:
    return "'" + cell if cell.startswith(_FORMULA_STARTS) else cell
