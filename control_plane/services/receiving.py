"""Bytes of a file on their way to the disk: appended where the last ones ended, hashed as they come.

What is promised: an offset that was recorded is on the disk (`fdatasync` first, the record after it), so
neither a killed process nor a power cut takes recorded bytes away. Memory is constant: callers hand over
bounded buffers, and nothing here keeps them.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

from control_plane.errors import (
    ChecksumError,
    InvalidInputError,
    LockedError,
    NoSpaceError,
    TooLargeError,
    UnavailableError,
)

CHECK_EVERY_BYTES = 64 * 1024 * 1024
"""Free space is looked at again after so many bytes."""
READ_BYTES = 4 * 1024 * 1024
MOST_BUFFERS = 1024
"""Buffers that one system call takes (IOV_MAX)."""
Buffer = bytes | bytearray


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


class Checksum:
    """What the bytes of one request must hash to. Raises ValueError for an algorithm Python lacks."""

    def __init__(self, algorithm: str, expected: bytes) -> None:
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        self._algorithm, self._expected = algorithm, expected

    def update(self, data: Buffer) -> None:
        """Take *data* in."""
        self._hash.update(data)

    def require(self) -> None:
        """Raise ChecksumError unless all that was taken in has the expected hash."""
        if self._hash.digest() != self._expected:
            raise ChecksumError(
                f"The bytes that arrived do not have the {self._algorithm} checksum they were sent with",
                next_step="Send them again.",
            )


class RunningHashes:
    """SHA-256 states of files under way in this process: a file that came in one run is not read again.

    A state cannot be written down, so after a restart there is none, and the whole file is read once more at
    its end. Keeps the *most* recent states, about 200 bytes each. Thread-safe.
    """

    def __init__(self, most: int = 1024) -> None:
        self._states: OrderedDict[str, tuple[int, hashlib._Hash]] = OrderedDict()
        self._most = most
        self._lock = threading.Lock()

    def take(self, name: str, offset: int) -> hashlib._Hash | None:
        """Take out the state of the first *offset* bytes of *name*, if it is known."""
        with self._lock:
            known_offset, state = self._states.pop(name, (0, None))
        if offset == 0:
            return hashlib.sha256()
        return state if known_offset == offset else None

    def keep(self, name: str, offset: int, state: hashlib._Hash | None) -> None:
        """Remember *state* as that of the first *offset* bytes of *name*."""
        if state is None:
            return
        with self._lock:
            self._states[name] = (offset, state)
            while len(self._states) > self._most:
                self._states.popitem(last=False)


class PartFile:
    """A file as far as it has arrived, open for more bytes and locked against everybody else.

    The lock is flock(2) on the file itself: it ends with the process that holds it, however that ends, and
    works among processes. Raises LockedError when another holds it, UnavailableError, NoSpaceError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise disk_error(error) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._handle)
            raise LockedError(
                "Somebody else is sending this file at this moment", next_step="Try again in a few seconds."
            ) from error

    def size(self) -> int:
        """Bytes the file holds."""
        return os.fstat(self._handle).st_size

    def truncate(self, size_bytes: int) -> None:
        """Keep the first *size_bytes*."""
        os.ftruncate(self._handle, size_bytes)

    def write(self, buffers: Sequence[Buffer], at: int) -> None:
        """Write all of *buffers*, one after the other, at the offset *at*. Raises OSError."""
        left = deque(memoryview(buffer) for buffer in buffers if buffer)
        while left:
            count = os.pwritev(self._handle, list(islice(left, MOST_BUFFERS)), at)
            at += count
            while left and count >= len(left[0]):
                count -= len(left.popleft())
            if count:
                left[0] = left[0][count:]

    def sync(self) -> None:
        """Return when what was written is on the disk."""
        os.fdatasync(self._handle)

    def place(self, target: Path) -> None:
        """Give the file its final name, for good."""
        os.fsync(self._handle)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path.rename(target)
        sync_folder(target.parent)

    def discard(self) -> None:
        """Drop its bytes."""
        self.truncate(0)

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class Incoming:
    """Takes bytes of one file from *offset* on. Blocking.

    `write` as often as needed, then `commit` or `end`; leaving the `with` block does the same as `end`.
    `write` from one thread at a time; `checkpoint` may run beside it. With a checksum no byte counts before
    all that were sent with it have arrived and fit.

    record: writes down how many bytes are safe. finish: called once with what arrived when the file is whole
    and with the step that puts it in its place, and decides whether that may happen.
    """

    def __init__(
        self,
        part: PartFile,
        *,
        name: str,
        offset: int,
        size_bytes: int,
        floor: DiskFloor,
        hashes: RunningHashes,
        record: Callable[[int], None],
        finish: Callable[[Received, PartFile], None],
        checksum: Checksum | None = None,
    ) -> None:
        self.size_bytes, self.offset = size_bytes, offset
        self.received: Received | None = None
        """What arrived, once the file is whole and in its place."""
        self._part, self._name, self._start = part, name, offset
        self._floor, self._checksum = floor, checksum
        self._record, self._finish = record, finish
        self._hashes, self._hash = hashes, hashes.take(name, offset)
        self._safe, self._check_at = offset, offset + CHECK_EVERY_BYTES
        self._open = True
        if checksum is not None:
            self._hash_before = self._hash.copy() if self._hash else None

    def __enter__(self) -> Incoming:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(whole=False)

    def write(self, *buffers: Buffer) -> None:
        """Add all of *buffers*, in order.

        Raises TooLargeError beyond the declared size, NoSpaceError, UnavailableError.
        """
        size = sum(map(len, buffers))
        self._check_room(size)
        try:
            self._part.write(buffers, self.offset)
        except OSError as error:
            raise disk_error(error) from error
        for buffer in buffers:
            if self._hash:
                self._hash.update(buffer)
            if self._checksum:
                self._checksum.update(buffer)
        self.offset += size

    def checkpoint(self) -> None:
        """Make what was written so far safe. Raises GoneError when the upload has ended meanwhile."""
        if self._checksum is None:
            self._make_safe(self.offset)

    def commit(self) -> Received:
        """All bytes were written: put the file in its place.

        Raises InvalidInputError when bytes are missing (what arrived is kept), ChecksumError, NoSpaceError.
        """
        self.end(whole=True)
        if self.received is None:
            raise InvalidInputError(
                f"{self.offset} of {self.size_bytes} bytes arrived", next_step="Send the rest."
            )
        return self.received

    def end(self, *, whole: bool) -> None:
        """No more bytes come; *whole*: the request was not cut. What is safe is kept. Idempotent.

        A whole file goes to its place. Raises ChecksumError, NoSpaceError, GoneError.
        """
        if not self._open:
            return
        try:
            self._judge(whole=whole)
            self._make_safe(self.offset)
            if self.offset == self.size_bytes:
                self.received = Received(self.size_bytes, self._digest())
                self._finish(self.received, self._part)
            else:
                self._hashes.keep(self._name, self.offset, self._hash)
        except OSError as error:
            raise disk_error(error) from error
        finally:
            self._open = False
            self._part.close()

    def _judge(self, *, whole: bool) -> None:
        if self._checksum is None:
            return
        if not whole:
            self._rollback()
            return
        try:
            self._checksum.require()
        except ChecksumError:
            self._rollback()
            self._hashes.keep(self._name, self.offset, self._hash)
            raise

    def _rollback(self) -> None:
        """Forget what this request wrote and nobody was told of."""
        self.offset = self._safe
        self._part.truncate(self._safe)
        self._hash = self._hash_before if self._checksum else None

    def _make_safe(self, offset: int) -> None:
        if offset > self._safe:
            self._part.sync()
            self._record(offset)
            self._safe = offset

    def _digest(self) -> str:
        return self._hash.hexdigest() if self._hash else hash_file(self._part.path)

    def _check_room(self, more: int) -> None:
        if self.offset + more > self.size_bytes:
            raise TooLargeError(
                f"More than the {self.size_bytes} bytes that were declared arrived",
                next_step="Declare the file's real size and send it again.",
            )
        if self.offset + more > self._check_at:
            self._floor.require(self.size_bytes - self.offset)
            self._check_at = self.offset + more + CHECK_EVERY_BYTES


def hash_file(path: Path) -> str:
    """SHA-256 of the file, hexadecimal, in constant memory."""
    whole = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(READ_BYTES)
        view = memoryview(buffer)
        while count := file.readinto(buffer):
            whole.update(view[:count])
    return whole.hexdigest()


def disk_error(error: OSError) -> NoSpaceError | UnavailableError:
    """*error* as a person can act on it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(
            "The disk is full", next_step="Delete versions or other files, then send it again."
        )
    return UnavailableError(
        f"The file could not be stored: {error.strerror or 'the disk failed'}", next_step="Send it again."
    )


def sync_folder(folder: Path) -> None:
    """Return when the names in *folder* are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        with suppress(OSError):
            os.close(handle)


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.2f}"
