"""Content-addressed artefacts: `<root>/sha256/ab/<hex>/<files…>`, written once, read-only.

An artefact appears under its digest only when every byte of it is on the disk: files are collected in a
folder of their own under `<root>/tmp`, synced, then the whole folder is renamed. A crash leaves nothing but
such folders.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from control_plane.errors import InvalidInputError, NotFoundError

BLOCK_BYTES = 4 * 1024 * 1024
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of an artefact; sha256 is hexadecimal."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """An artefact in the store; files are sorted by path."""

    digest: str
    size_bytes: int
    files: tuple[StoredFile, ...]


def digest_of(files: Iterable[StoredFile]) -> str:
    """`sha256:<hex>` over the sorted lines "<path>\\0<sha256>\\n" of *files*. Pure."""
    whole = hashlib.sha256()
    for line in sorted(f"{file.path}\0{file.sha256}\n" for file in files):
        whole.update(line.encode())
    return f"sha256:{whole.hexdigest()}"


Advance = Callable[[float], object]
"""Told the done share in [0, 1]; whatever it raises ends the work."""


def ignore(_done: float) -> None:
    """An `Advance` for those who do not wait."""


class _Read:
    """How much of so many bytes has been read."""

    def __init__(self, total_bytes: int, advance: Advance) -> None:
        self._total = max(1, total_bytes)
        self._advance = advance
        self._done = 0

    def add(self, size_bytes: int) -> None:
        self._done += size_bytes
        self._advance(min(1.0, self._done / self._total))


class ArtifactStore:
    """The artefacts under one folder; any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, digest: str) -> Path:
        """The folder that holds the files of *digest*, whether or not it is there."""
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise InvalidInputError(f"{digest!r} is not a digest")
        return self._root / "sha256" / match[1][:2] / match[1]

    def holds(self, digest: str) -> bool:
        """Whether the artefact is in the store."""
        return self.folder(digest).is_dir()

    def digests(self) -> Iterator[str]:
        """Every digest in the store, in no order; what else lies there is not ours."""
        for folder in self._root.glob("sha256/??/*"):
            if _DIGEST.fullmatch(digest := f"sha256:{folder.name}"):
                yield digest

    def ingest(self, source: Path) -> StoredArtifact:
        """Take the files below *source* into the store (hard links where the file system allows, else
        copies).

        Idempotent, and safe while others ingest the same content: one copy is kept, and one that was damaged
        is replaced. *source* stays as it was, except that linked files become read-only. Raises
        InvalidInputError for links, devices or no file at all, OSError when the disk fails.
        """
        temporary = self._root / "tmp" / uuid.uuid4().hex
        temporary.mkdir(parents=True)
        try:
            files = tuple(_take(source, path, temporary) for path in _regular_files(source))
            artifact = StoredArtifact(digest_of(files), sum(file.size_bytes for file in files), files)
            _sync_folders(temporary)
            self._publish(temporary, artifact)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return artifact

    def verify(self, artifact: StoredArtifact, advance: Advance = ignore) -> tuple[str, ...]:
        """Read every file of *artifact* again and say what is wrong with each; empty when all is well.

        advance: told the share of the artefact's bytes that have been read, in [0, 1].
        """
        folder = self.folder(artifact.digest)
        if not folder.is_dir():
            raise NotFoundError(f"Artefact {artifact.digest} is not in the store")
        read = _Read(artifact.size_bytes, advance)
        problems = [problem for file in artifact.files if (problem := _wrong(folder, file, read))]
        expected = {file.path for file in artifact.files}
        extra = sorted({path.as_posix() for path in _regular_files(folder)} - expected)
        return (*problems, *(f"{path} does not belong to it" for path in extra))

    def delete(self, digest: str) -> None:
        """Remove the artefact's files. Idempotent. The caller makes sure that no version holds it."""
        self.discard(self.set_aside(digest))

    def set_aside(self, digest: str) -> Path | None:
        """Take the artefact out of the store in one quick step; where its files are now, for `discard`.

        None when there is no such artefact. What is not discarded goes with what crashes leave behind.
        """
        aside = self._root / "tmp" / uuid.uuid4().hex
        aside.parent.mkdir(parents=True, exist_ok=True)
        try:
            return self.folder(digest).rename(aside)
        except FileNotFoundError:
            return None

    def discard(self, aside: Path | None) -> None:
        """Remove what was set aside; takes as long as the disk does."""
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)

    def clean(self, now: float, older_than_s: float) -> int:
        """Remove what crashes left behind more than *older_than_s* ago; how many folders that were."""
        stale = [folder for folder in self._root.glob("tmp/*") if _changed_at(folder) < now - older_than_s]
        for folder in stale:
            shutil.rmtree(folder, ignore_errors=True)
        return len(stale)

    def _publish(self, temporary: Path, artifact: StoredArtifact) -> None:
        final = self.folder(artifact.digest)
        final.parent.mkdir(parents=True, exist_ok=True)
        while not _renamed(temporary, final):  # it is there already
            if _holds(final, artifact.files, temporary):
                break
            self.delete(artifact.digest)
        _sync(final.parent)


def _regular_files(source: Path) -> list[Path]:
    """Relative paths of all files below *source*, sorted."""
    found = []
    for path in sorted(source.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise InvalidInputError(
                f"{path.relative_to(source).as_posix()!r} is a link or a device, not a file"
            )
        if path.is_file():
            found.append(path.relative_to(source))
    if not found:
        raise InvalidInputError("There is no file to store")
    return found


def link_or_copy(source: Path, target: Path) -> None:
    """Give the file *source* the name *target* too, or its content where that cannot be. Raises OSError."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target, follow_symlinks=False)


def _take(source: Path, path: Path, target: Path) -> StoredFile:
    """Link or copy one file into *target*, read-only and on the disk, and hash what is there."""
    destination = target / path
    destination.parent.mkdir(parents=True, exist_ok=True)
    link_or_copy(source / path, destination)
    try:
        destination.chmod(0o444)
    except PermissionError:  # linked, and somebody else's
        destination.unlink()
        shutil.copyfile(source / path, destination, follow_symlinks=False)
        destination.chmod(0o444)
    size_bytes, sha256 = _hash(destination)
    _sync(destination)
    return StoredFile(path.as_posix(), size_bytes, sha256)


def _hash(path: Path, read: _Read | None = None) -> tuple[int, str]:
    whole, size_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            whole.update(block)
            size_bytes += len(block)
            if read is not None:
                read.add(len(block))
    return size_bytes, whole.hexdigest()


def _wrong(folder: Path, file: StoredFile, read: _Read) -> str | None:
    try:
        found = _hash(folder / file.path, read)
    except FileNotFoundError:
        return f"{file.path} is missing"
    return None if found == (file.size_bytes, file.sha256) else f"{file.path} holds other bytes"


def _renamed(folder: Path, target: Path) -> bool:
    """Rename *folder*; False where *target* is a folder with files in it."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _holds(folder: Path, files: Sequence[StoredFile], good: Path) -> bool:
    """Whether *folder* has just these files, as they are below *good*; reads those that are not the same."""
    try:
        return (
            [path.as_posix() for path in _regular_files(folder)] == [file.path for file in files]
            and all((folder / file.path).stat().st_size == file.size_bytes for file in files)
            and all(
                (folder / file.path).samefile(good / file.path)
                or _hash(folder / file.path) == (file.size_bytes, file.sha256)
                for file in files
            )
        )
    except (OSError, InvalidInputError):  # it cannot be read, holds links, or nothing
        return False


def _sync_folders(top: Path) -> None:
    for folder in (top, *(path for path in top.rglob("*") if path.is_dir())):
        _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _changed_at(folder: Path) -> float:
    """When it last changed; never, for one that has just gone to its place."""
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return math.inf
