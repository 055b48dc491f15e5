"""What commands print: one JSON document, or tables and sentences for people; problems go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from control_plane.cli.failures import CommandError
from control_plane.errors import SignalboxError

_UNBOUNDED: Final = 10_000
"""Width of what is no terminal, in characters: a file or another program gets every cell whole."""
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


class Output:
    """Standard output and error of one command."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        is_terminal = sys.stdout.isatty()
        self._out = Console(
            highlight=False, soft_wrap=not is_terminal, width=None if is_terminal else _UNBOUNDED
        )
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)
        self.progress = Console(stderr=True, highlight=False, quiet=as_json)
        """For progress bars and notes; silent in JSON mode."""

    def document(self, document: Any) -> None:
        """The command's one JSON document; nothing for people."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
            sys.stdout.flush()

    def line(self, text: str = "") -> None:
        """A line for people."""
        if not self.as_json:
            self._out.print(Text(text))

    def note(self, text: str) -> None:
        """A line about what is going on, on stderr; nothing in JSON mode."""
        self.progress.print(Text(text))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
        """A table for people, or the sentence *empty*."""
        if self.as_json:
            return
        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
        self._out.print(table if table.row_count else Text(empty))

    def problem(self, error: SignalboxError | CommandError) -> None:
        """What went wrong, why, and the next step: on stderr, and as JSON on stdout in JSON mode."""
        self._err.print(Text(f"error: {error.message}"))
        if error.next_step:
            self._err.print(Text(f"  → {error.next_step}"))
        body = {"code": error.code, "message": error.message, "next_step": error.next_step}
        self.document({"error": {**body, "details": jsonable(error.details)}})


def jsonable(details: Mapping[str, Any]) -> dict[str, Any]:
    """Those of *details* that JSON can hold."""
    plain = (str, int, float, bool, list, dict, type(None))
    return {key: value for key, value in details.items() if isinstance(value, plain)}


def size(size_bytes: float | None) -> str:
    """Bytes in the largest fitting binary unit: `1.2 MiB`."""
    if size_bytes is None:
        return ""
    value, unit = float(size_bytes), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def when(at: float | None) -> str:
    """UTC time to the second."""
    return "" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%SZ}"


def timings(seconds: Mapping[str, float]) -> str:
    """Stages of a start with their seconds, and the sum: `start 0.40 s + load 0.10 s = 0.50 s`."""
    if not seconds:
        return ""
    parts = " + ".join(f"{stage} {value:.2f} s" for stage, value in seconds.items())
    return f"{parts} = {sum(seconds.values()):.2f} s"
