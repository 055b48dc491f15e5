"""The files of a step, held so that the training run that owns them cannot take them away meanwhile.

NeMo RL deletes steps that are not among its best (`keep_top_k`). A hard link keeps a file's bytes without
copying them; on another file system they are copied. Files of a checkpoint are never changed in place.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from control_plane.errors import InvalidInputError, NoSpaceError
from control_plane.nemo_rl import listing

BLOCK_BYTES: Final = 4 * 1024 * 1024
NO_LINKS: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP})
PART: Final = ".part"


def take(
    step: Path, paths: Iterable[str], target: Path, *, keep_free: int, progress: Callable[[int], object]
) -> bool:
    """Link or copy the files *paths* of *step* below *target*; return whether all of them were linked.

    Files that are there already are kept, so a job that is run again goes on. *keep_free*: bytes of the
    target's disk that copies must leave; *progress* is told how many bytes a copy has written. Raises
    ConflictError where the step went, InvalidInputError for a link or device, NoSpaceError.
    """
    linked = True
    for path in paths:
        held = target / path
        if held.exists():
            continue
        held.parent.mkdir(parents=True, exist_ok=True)
        try:
            linked = _take(step / path, held, keep_free, progress) and linked
        except FileNotFoundError:
            raise listing.gone(step) from None
    return linked


def _take(source: Path, held: Path, keep_free: int, progress: Callable[[int], object]) -> bool:
    _check_plain(source)
    try:
        os.link(source, held, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        _copy(source, held, keep_free, progress)
        return False
    _check_plain(held)
    return True


def _check_plain(path: Path) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise InvalidInputError(
            f"{path} is not a plain file", next_step="Replace the link by the file itself."
        )


def _copy(source: Path, held: Path, keep_free: int, progress: Callable[[int], object]) -> None:
    part = held.with_name(held.name + PART)
    with _opened(source) as read:
        size = os.fstat(read.fileno()).st_size
        if shutil.disk_usage(held.parent).free - size < keep_free:
            raise NoSpaceError(
                f"Copying {source.name} ({size} bytes) would fill the disk",
                next_step="Delete versions or other files, or keep the runs on the same disk as "
                "SIGNALBOX_HOME: then nothing is copied.",
            )
        with part.open("wb") as written:
            while block := read.read(BLOCK_BYTES):
                written.write(block)
                progress(len(block))
    part.replace(held)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:
        yield stream


class Hashes:
    """Computes sha256 of files in a thread while other work goes on; use as a context manager."""

    def __init__(self, folder: Path, paths: Iterable[str]) -> None:
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(1, "source-hashes")
        self._digests: dict[str, Future[str]] = {
            path: self._pool.submit(self._digest, folder / path) for path in paths
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._pool.shutdown(cancel_futures=True)

    def wait(self) -> Mapping[str, str]:
        """Return path → sha256 in hexadecimal, once all are known. Raises OSError."""
        return {path: digest.result() for path, digest in self._digests.items()}

    def _digest(self, path: Path) -> str:
        digest, block = hashlib.sha256(), memoryview(bytearray(BLOCK_BYTES))
        with path.open("rb", buffering=0) as stream:
            while (count := stream.readinto(block)) and not self._ended.is_set():
                digest.update(block[:count])
        return digest.hexdigest()


def sha256(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
