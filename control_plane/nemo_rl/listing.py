"""The files below a folder of a run, by relative path, and small documents among them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from control_plane.errors import ConflictError, InvalidInputError, NotFoundError

MAX_FILES: Final = 100_000
MAX_DEPTH: Final = 12

Files = dict[str, int]
"""Relative path with forward slashes → size in bytes; plain files only, links are not followed."""


def files(folder: Path) -> Files:
    """List the plain files below *folder*, hidden ones too.

    Raises NotFoundError where there is no folder, ConflictError where it goes while it is read, and
    InvalidInputError where it holds more than MAX_FILES files.
    """
    if not folder.is_dir():
        raise NotFoundError(f"There is no folder {folder}", next_step="Check the path.")
    found: Files = {}
    try:
        for path, size in _walk(folder, "", 0):
            found[path] = size
            if len(found) > MAX_FILES:
                raise InvalidInputError(
                    f"{folder} holds more than {MAX_FILES} files",
                    next_step="Name the run's own folder, the one that holds step_1, step_2 and so on.",
                )
    except FileNotFoundError:
        raise gone(folder) from None
    except PermissionError as error:
        raise InvalidInputError(
            f"{error.filename} cannot be read by the user that Signalbox runs as",
            next_step="Allow that user to read the run's folder.",
        ) from None
    return dict(sorted(found.items()))


def gone(folder: Path) -> ConflictError:
    """Return the error of a step that its own training run deleted while we read it."""
    return ConflictError(
        f"{folder.name} disappeared while it was read: a running training keeps only some of its steps",
        next_step="Read the run again and choose a step that is still there.",
    )


def small_file(path: Path, limit: int) -> bytes:
    """Return the bytes of a plain file of at most *limit* bytes.

    Raises NotFoundError where there is none, InvalidInputError where it is larger or no plain file.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise InvalidInputError(f"{path} is not a plain file")
            data = stream.read(limit + 1)
    except FileNotFoundError:
        raise NotFoundError(f"There is no file {path}") from None
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise InvalidInputError(f"{path} has more than {limit} bytes, which is no file of a training run")
    return data


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            seen = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(seen.st_mode):
                yield prefix + entry.name, seen.st_size
            elif stat.S_ISDIR(seen.st_mode) and depth < MAX_DEPTH:
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", depth + 1)
