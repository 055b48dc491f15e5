"""Log files of child processes: bounded in size, read from the end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

LARGEST_BYTES: Final = 16 * 1024 * 1024
"""A longer log is moved to `<name>.1` (one generation is kept)."""
_BLOCK_BYTES: Final = 64 * 1024
_LONGEST_LINE: Final = 2000


def open_for(path: Path) -> int:
    """Open *path* for a child's output and return the file descriptor.

    In append mode: writers go on at the new end after the file was cut, and several may share it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def bound(path: Path, largest_bytes: int = LARGEST_BYTES) -> bool:
    """Move a log that grew too long aside, in place: its writers keep their file. Return whether it did.

    Where the disk has no room for the older part, that part is dropped: the bound matters more.
    """
    older = path.with_name(f"{path.name}.1")
    try:
        if path.stat().st_size <= largest_bytes:
            return False
        try:
            shutil.copyfile(path, older)
        except OSError:
            older.unlink(missing_ok=True)
        os.truncate(path, 0)
    except OSError:
        return False
    return True


def tail(path: Path, lines: int) -> tuple[str, ...]:
    """The last *lines* lines, oldest first, each cut to 2,000 characters; empty when there is no file."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            held = b""
            while end > 0 and held.count(b"\n") <= lines and len(held) < lines * _LONGEST_LINE:
                start = max(0, end - _BLOCK_BYTES)
                file.seek(start)
                held = file.read(end - start) + held
                end = start
    except FileNotFoundError:
        return ()
    texts = held.decode("utf-8", "replace").splitlines()
    return tuple(text[:_LONGEST_LINE] for text in texts[-lines:]) if lines > 0 else ()
