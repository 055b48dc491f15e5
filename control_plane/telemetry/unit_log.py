"""Reads the gateway's log of requests that count by unit as it grows, and keeps it from growing without end.

A log that is too long is renamed and a new one begun; the one before is kept until then, so that whoever
starts anew can read who was counted already. Whatever happens to the files costs lines, and nothing else.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from control_plane.errors import UnavailableError

logger = logging.getLogger(__name__)

LARGEST_BYTES: Final = 64 * 1024 * 1024
_CHUNK_BYTES: Final = 1024 * 1024
"""Lines are far shorter: the gateway takes a session's name only up to 8 KiB."""


class UnitLog:
    """The log in the file *path*; not thread-safe, one per home folder.

    reopen: makes the gateway open its logs anew, by name, or raises UnavailableError.
    """

    def __init__(self, path: Path, reopen: Callable[[], None], *, largest_bytes: int = LARGEST_BYTES) -> None:
        self._path = path
        self._before = path.with_name(f"{path.name}.1")
        self._reopen = reopen
        self._largest_bytes = largest_bytes
        self._offsets: dict[int, int] = {}
        """By inode, up to where a file was read: its name changes."""
        self._reopen_due = True  # whoever rotated last may have been killed before the gateway was told

    def lines(self) -> Iterator[bytes]:
        """Return the whole lines since the last call; at the first one all there are, the oldest first."""
        for path in (self._before, self._path):
            try:
                yield from self._lines_of(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                logger.debug("%s cannot be read: %s", path, error)

    def rotate(self) -> None:
        """Begin a new log if this one is too long, and have the gateway write to it.

        Call it when all lines were taken.
        """
        try:
            if not self._reopen_due and self._path.stat().st_size > self._largest_bytes:
                self._begin_anew()
            if self._reopen_due:
                self._reopen()
                self._reopen_due = False
        except (OSError, UnavailableError) as error:  # tried again the next time
            logger.debug("%s cannot be rotated: %s", self._path, error)

    def _lines_of(self, path: Path) -> Iterator[bytes]:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            start = self._offsets.get(status.st_ino, 0)
            start = start if start <= status.st_size else 0  # somebody emptied it
            file.seek(start)
            while start < status.st_size and (whole := _whole_lines(file.read(_CHUNK_BYTES))):
                start += len(whole)
                self._offsets[status.st_ino] = start
                file.seek(start)
                yield from whole.split(b"\n")

    def _begin_anew(self) -> None:
        following = self._path.with_name(f"{self._path.name}.next")
        following.unlink(missing_ok=True)
        following.touch(mode=0o600)  # first, for it fails where the disk is full
        inode = self._path.stat().st_ino
        self._path.replace(self._before)
        following.replace(self._path)
        # the file that was removed may have left its inode to the new one
        self._offsets = {inode: self._offsets.get(inode, 0)}
        self._reopen_due = True


def _whole_lines(chunk: bytes) -> bytes:
    """Return *chunk* without the line that is still being written; all of it if that is no line at all."""
    whole, newline, _ = chunk.rpartition(b"\n")
    return chunk if not newline and len(chunk) == _CHUNK_BYTES else whole + newline
