"""The end of a log file, without reading the rest."""

from __future__ import annotations

import os
from pathlib import Path

from control_plane.errors import InvalidInputError

MAX_LINES = 5000
_BYTES_PER_LINE = 400
_MAX_BYTES = 2 * 1024 * 1024


def tail(path: Path, lines: int) -> tuple[str, ...]:
    """The last *lines* lines of *path* (at most 2 MiB), oldest first; none when the file is not there."""
    if not 1 <= lines <= MAX_LINES:
        raise InvalidInputError(f"lines must be from 1 to {MAX_LINES}, not {lines}")
    window = min(_MAX_BYTES, lines * _BYTES_PER_LINE)
    try:
        while True:
            text, whole = _end(path, window)
            found = text.splitlines() if whole else text.splitlines()[1:]
            if whole or len(found) >= lines or window == _MAX_BYTES:
                return tuple(found[-lines:])
            window = min(_MAX_BYTES, window * 4)
    except FileNotFoundError:
        return ()


def _end(path: Path, window: int) -> tuple[str, bool]:
    """(The last *window* bytes as text, whether that is the whole file.)"""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - window))
        return file.read().decode(errors="replace"), size <= window
