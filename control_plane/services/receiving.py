"""Bytes of an upload on their way to the disk: hashed as they come, in constant memory."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

from control_plane.errors import InvalidInputError, NoSpaceError, TooLargeError, UnavailableError

CHECK_EVERY_BYTES = 64 * 1024 * 1024
"""Free space is looked at again after so many bytes."""


class DiskUsage(Protocol):
    """What `shutil.disk_usage` returns; bytes."""

    @property
    def total(self) -> int:
        """Size of the file system."""

    @property
    def free(self) -> int:
        """Bytes that may still be written."""


@dataclass(frozen=True, slots=True)
class DiskFloor:
    """The share of *folder*'s disk that must stay free; usage: `shutil.disk_usage` or the like."""

    folder: Path
    share: float
    usage: Callable[[Path], DiskUsage] = shutil.disk_usage

    def require(self, size_bytes: int) -> None:
        """Raise NoSpaceError unless *size_bytes* more fit above the floor."""
        disk = self.usage(self.folder)
        if disk.free - size_bytes < disk.total * self.share:
            raise NoSpaceError(
                f"{_gib(size_bytes)} GiB more do not fit: the disk has {_gib(disk.free)} GiB free, "
                f"of which {_gib(disk.total * self.share)} GiB must stay free",
                next_step="Delete versions or other files, or lower SIGNALBOX_DISK_FLOOR.",
                free_bytes=disk.free,
                needed_bytes=size_bytes,
            )


class Received(NamedTuple):
    """What arrived of one file; sha256 is hexadecimal."""

    size_bytes: int
    sha256: str


class FileSink:
    """Takes the bytes of one file. Blocking; use it from one thread at a time.

    `write` as often as needed, then `commit`; anything else (an error, `abort`, leaving the `with` block)
    drops the partial file. The file appears under its name only whole, with the declared size. on_commit is
    given what arrived and the step that puts it in its place, and decides whether that may happen.
    """

    def __init__(
        self,
        target: Path,
        size_bytes: int,
        *,
        partial_dir: Path,
        floor: DiskFloor,
        on_commit: Callable[[Received, Callable[[], None]], None],
    ) -> None:
        self.size_bytes = size_bytes
        self._target, self._floor, self._on_commit = target, floor, on_commit
        self._partial = partial_dir / uuid.uuid4().hex
        self._hash = hashlib.sha256()
        self._written = 0
        self._check_at = CHECK_EVERY_BYTES
        floor.require(size_bytes)
        try:
            partial_dir.mkdir(parents=True, exist_ok=True)
            self._file = self._partial.open("xb", buffering=0)
        except OSError as error:
            raise _disk_error(error) from error

    def __enter__(self) -> FileSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def write(self, data: bytes) -> None:
        """Add *data*. Raises TooLargeError beyond the declared size, NoSpaceError, UnavailableError."""
        try:
            self._check_room(len(data))
            _write_all(self._file, data)
        except OSError as error:
            self.abort()
            raise _disk_error(error) from error
        except BaseException:
            self.abort()
            raise
        self._hash.update(data)
        self._written += len(data)

    def commit(self) -> Received:
        """Put the whole file in its place. Raises InvalidInputError when bytes are missing, NoSpaceError."""
        try:
            self._check_whole()
            os.fsync(self._file.fileno())
            self._file.close()
            received = Received(self._written, self._hash.hexdigest())
            self._on_commit(received, self._place)
        except OSError as error:
            self.abort()
            raise _disk_error(error) from error
        except BaseException:
            self.abort()
            raise
        return received

    def _place(self) -> None:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self._partial.rename(self._target)
        _sync_folder(self._target.parent)

    def abort(self) -> None:
        """Drop what arrived, unless it was committed. Idempotent."""
        with suppress(OSError):
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def _check_room(self, more: int) -> None:
        if self._written + more > self.size_bytes:
            raise TooLargeError(
                f"More than the {self.size_bytes} bytes that were declared arrived for {self._target.name!r}",
                next_step="Declare the file's real size and send it again.",
            )
        if self._written + more > self._check_at:
            self._floor.require(self.size_bytes - self._written)
            self._check_at += CHECK_EVERY_BYTES

    def _check_whole(self) -> None:
        if self._written != self.size_bytes:
            raise InvalidInputError(
                f"{self._written} of {self.size_bytes} bytes arrived for {self._target.name!r}",
                next_step="Send the file again.",
            )


def _write_all(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _disk_error(error: OSError) -> NoSpaceError | UnavailableError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(
            "The disk is full", next_step="Delete versions or other files, then send it again."
        )
    return UnavailableError(
        f"The file could not be stored: {error.strerror or 'the disk failed'}", next_step="Send it again."
    )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.2f}"
