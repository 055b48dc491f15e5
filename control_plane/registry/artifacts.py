"""Content-addressed artefacts: `<root>/sha256/ab/<hex>/<files…>`, written once, read-only.

An artefact appears under its digest only when every byte of it is on the disk: files are collected in a
folder of their own under `<root>/tmp`, synced, then the whole folder is renamed. A crash leaves nothing but
such folders.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
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
        """Every digest in the store, in no order."""
        for folder in self._root.glob("sha256/??/*"):
            yield f"sha256:{folder.name}"

    def ingest(self, source: Path) -> StoredArtifact:
        """Take the files below *source* into the store (hard links where the file system allows, else
        copies).

        Idempotent, and safe while others ingest the same content: one copy is kept. *source* stays as it was,
        except that linked files become read-only. Raises InvalidInputError for links, devices or no file at
        all, OSError when the disk fails.
        """
        temporary = self._root / "tmp" / uuid.uuid4().hex
        temporary.mkdir(parents=True)
        try:
            files = tuple(_take(source, path, temporary) for path in _regular_files(source))
            artifact = StoredArtifact(digest_of(files), sum(file.size_bytes for file in files), files)
            _sync_folders(temporary)
            self._publish(temporary, self.folder(artifact.digest))
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return artifact

    def verify(self, artifact: StoredArtifact) -> tuple[str, ...]:
        """Read every file of *artifact* again and say what is wrong with each; empty when all is well."""
        folder = self.folder(artifact.digest)
        if not folder.is_dir():
            raise NotFoundError(f"Artefact {artifact.digest} is not in the store")
        problems = [problem for file in artifact.files if (problem := _wrong(folder, file))]
        expected = {file.path for file in artifact.files}
        extra = sorted({path.as_posix() for path in _regular_files(folder)} - expected)
        return (*problems, *(f"{path} does not belong to it" for path in extra))

    def delete(self, digest: str) -> None:
        """Remove the artefact's files. Idempotent. The caller makes sure that no version holds it."""
        self._discard(self.folder(digest))

    def clean(self, now: float, older_than_s: float) -> int:
        """Remove what crashes left behind more than *older_than_s* ago; how many folders that were."""
        stale = [folder for folder in self._root.glob("tmp/*") if _changed_at(folder) < now - older_than_s]
        for folder in stale:
            shutil.rmtree(folder, ignore_errors=True)
        return len(stale)

    def _publish(self, temporary: Path, final: Path) -> None:
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.rename(final)
        except OSError:
            if not final.is_dir():  # somebody else was faster with the same content: theirs stays
                raise
        _sync(final.parent)

    def _discard(self, folder: Path) -> None:
        """Move *folder* out of sight in one step, then remove it."""
        trash = self._root / "tmp" / uuid.uuid4().hex
        trash.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.rename(trash)
        except FileNotFoundError:
            return
        shutil.rmtree(trash, ignore_errors=True)


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


def _take(source: Path, path: Path, target: Path) -> StoredFile:
    """Link or copy one file into *target*, read-only and on the disk, and hash what is there."""
    destination = target / path
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source / path, destination, follow_symlinks=False)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source / path, destination, follow_symlinks=False)
    destination.chmod(0o444)
    size_bytes, sha256 = _hash(destination)
    _sync(destination)
    return StoredFile(path.as_posix(), size_bytes, sha256)


def _hash(path: Path) -> tuple[int, str]:
    whole, size_bytes = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            whole.update(block)
            size_bytes += len(block)
    return size_bytes, whole.hexdigest()


def _wrong(folder: Path, file: StoredFile) -> str | None:
    try:
        found = _hash(folder / file.path)
    except FileNotFoundError:
        return f"{file.path} is missing"
    return None if found == (file.size_bytes, file.sha256) else f"{file.path} holds other bytes"


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
