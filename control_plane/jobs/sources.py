"""Where an upload by reference comes from: a path of this machine, a web server, or what fsspec reaches."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol
from urllib.parse import unquote, urljoin, urlsplit

import fsspec  # type: ignore[import-untyped]  # ships no types
import httpx

from control_plane.config import Settings
from control_plane.domain.file_paths import is_hidden
from control_plane.domain.references import check_url, is_url
from control_plane.errors import ConflictError, InvalidInputError, SignalboxError, UnavailableError
from control_plane.services.upload_declarations import NewFile

BLOCK_BYTES: Final = 4 * 1024 * 1024
REDIRECTS: Final = 5
TIMEOUT_S: Final = 60.0
_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SWAPPED: Final = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENOENT})
"""Errors of opening what was a file in a folder, and is a link or gone."""


class Source(Protocol):
    """Files that can be read."""

    def files(self) -> tuple[NewFile, ...]:
        """Return what there is, sorted by path. Raises InvalidInputError, UnavailableError."""

    def blocks(self, path: str) -> Iterator[bytes]:
        """Read one file, block by block."""

    def local(self, path: str) -> FileIO | None:
        """Open the file, for the caller to close, if it lies on this machine."""


def of(reference: str, settings: Settings) -> Source:
    """Return the source that *reference* names; it has been checked (see `imports.check`)."""
    if not is_url(reference):
        return Folder(Path(reference))
    if urlsplit(reference).scheme.lower() in ("http", "https"):
        return WebFile(reference, settings.import_urls)
    return Bucket(reference)


@dataclass(frozen=True, slots=True)
class _Listed:
    """One file as it was listed: what is read later must be the same."""

    place: Path
    device: int
    inode: int
    size_bytes: int
    modified_ns: int


class Folder:
    """A file or folder of this machine; hidden files stay behind, links are refused.

    What was checked may be swapped for a link before it is read. So every step of a path is opened from the
    folder before it, following no link, and a file is read only if it is the one that was listed.
    """

    def __init__(self, top: Path) -> None:
        """top: free of links, as `Path.resolve` gives it."""
        self._top = top
        self._found: dict[str, _Listed] | None = None

    def files(self) -> tuple[NewFile, ...]:
        """Return what there is. Raises InvalidInputError for links and devices, UnavailableError."""
        entries = sorted(self._entries().items())
        return tuple(NewFile(name, seen.size_bytes, seen.modified_ns // 1_000_000) for name, seen in entries)

    def blocks(self, path: str) -> Iterator[bytes]:
        """Read one file. Raises as `local` does."""
        with self.local(path) as file, _reaching():
            while block := file.read(BLOCK_BYTES):
                yield block

    def local(self, path: str) -> FileIO:
        """Open one file. Raises ConflictError when another lies in its place, UnavailableError."""
        listed = self._entries()[path]
        try:
            file = FileIO(_open(listed.place))
        except OSError as error:
            raise (_changed(path) if error.errno in _SWAPPED else _lost(error)) from error
        if _listed(listed.place, os.fstat(file.fileno())) != listed:
            file.close()
            raise _changed(path)
        return file

    def _entries(self) -> Mapping[str, _Listed]:
        if self._found is None:
            with _reaching():
                self._found = {
                    name or self._top.name: _listed(self._top / name, seen)
                    for name, seen in _files_at(self._top)
                }
        return self._found


def _files_at(top: Path) -> Iterator[tuple[str, os.stat_result]]:
    """The files below *top*, by path; *top* itself, by no name, if it is one."""
    handle = _open(top)
    try:
        seen = os.fstat(handle)
        if stat.S_ISREG(seen.st_mode):
            yield "", seen
        else:
            yield from _files_in(handle)
    finally:
        os.close(handle)


def _files_in(top: int) -> Iterator[tuple[str, os.stat_result]]:
    for place, folders, names, here in os.fwalk(".", dir_fd=top, onerror=_raise):
        paths = {name: (PurePosixPath(place) / name).as_posix() for name in [*folders, *names]}
        folders[:] = [name for name in folders if not is_hidden(paths[name])]
        for name in (*folders, *(name for name in names if not is_hidden(paths[name]))):
            seen = os.stat(name, dir_fd=here, follow_symlinks=False)
            if stat.S_ISREG(seen.st_mode):
                yield paths[name], seen
            elif not stat.S_ISDIR(seen.st_mode):
                raise InvalidInputError(
                    f"{paths[name][:200]!r} is a link or a device, not a file",
                    next_step="Import a folder of real files.",
                )


def _open(place: Path) -> int:
    """Open *place*, an absolute path, following no link anywhere on it. Raises OSError."""
    folder = os.open("/", _STEP)
    try:
        for part in place.parts[1:-1]:
            inner = os.open(part, _STEP, dir_fd=folder)
            os.close(folder)
            folder = inner
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not keep us waiting
        return os.open(place.name or ".", flags, dir_fd=folder)
    finally:
        os.close(folder)


def _listed(place: Path, seen: os.stat_result) -> _Listed:
    return _Listed(place, seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns)


def _raise(error: OSError) -> None:
    raise error


def _changed(path: str) -> ConflictError:
    return ConflictError(
        f"{path[:200]!r} changed while it was fetched", next_step="Import it when it is whole."
    )


class WebFile:
    """One file of a web server. A redirect is followed only to what is allowed itself."""

    def __init__(self, url: str, allowed: tuple[str, ...]) -> None:
        self._url, self._allowed = url, allowed

    def files(self) -> tuple[NewFile, ...]:
        """Return the file, with the size the server names. Raises InvalidInputError without one."""
        with self._opened() as answer:
            length = answer.headers.get("content-length", "")
            if not length.isdecimal() or "content-encoding" in answer.headers:
                raise InvalidInputError(
                    "The server does not say how large the file is", next_step="Download it and push it."
                )
            name = unquote(PurePosixPath(urlsplit(self._url).path).name) or "model"
            return (NewFile(name, int(length)),)

    def blocks(self, _path: str) -> Iterator[bytes]:
        """Read the file."""
        with self._opened() as answer:
            try:
                yield from answer.iter_raw(BLOCK_BYTES)
            except httpx.TransportError as error:
                raise _lost(error) from error

    def local(self, _path: str) -> None:
        """Nowhere on this machine."""

    @contextmanager
    def _opened(self) -> Iterator[httpx.Response]:
        headers = {"accept-encoding": "identity"}
        url = self._url
        with httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
            for _ in range(REDIRECTS):
                try:
                    answer = client.send(client.build_request("GET", url, headers=headers), stream=True)
                except httpx.TransportError as error:
                    raise _lost(error) from error
                try:
                    if not answer.has_redirect_location:
                        yield self._found(answer)
                        return
                    url = check_url(urljoin(url, answer.headers["location"]), self._allowed)
                finally:
                    answer.close()
        raise InvalidInputError(f"The server redirects more than {REDIRECTS} times")

    def _found(self, answer: httpx.Response) -> httpx.Response:
        if answer.status_code != httpx.codes.OK:
            raise InvalidInputError(f"The server answers {answer.status_code} instead of the file")
        return answer


@dataclass(frozen=True, slots=True)
class _Entry:
    """One file of a bucket."""

    place: str
    size_bytes: int
    modified_ms: int | None


class Bucket:
    """A file or folder that fsspec reaches; credentials come from the environment of the worker."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._found: dict[str, _Entry] | None = None

    def files(self) -> tuple[NewFile, ...]:
        """Return what there is; hidden files stay behind."""
        entries = sorted(self._entries().items())
        return tuple(NewFile(name, entry.size_bytes, entry.modified_ms) for name, entry in entries)

    def blocks(self, path: str) -> Iterator[bytes]:
        """Read one file."""
        fs, _ = self._file_system()
        with _reaching(), fs.open(self._entries()[path].place, "rb", block_size=BLOCK_BYTES) as file:
            while block := file.read(BLOCK_BYTES):
                yield block

    def local(self, _path: str) -> None:
        """Nowhere on this machine."""

    def _file_system(self) -> tuple[Any, str]:
        with _reaching():
            try:
                fs, top = fsspec.core.url_to_fs(self._url)
            except (ImportError, ValueError) as error:
                raise InvalidInputError(
                    f"This kind of URL cannot be read here: {error}",
                    next_step="Install what fsspec needs for it into Signalbox's environment.",
                ) from error
        return fs, str(top)

    def _entries(self) -> Mapping[str, _Entry]:
        if self._found is None:
            fs, top = self._file_system()
            with _reaching():
                listed = {top: fs.info(top)} if fs.isfile(top) else fs.find(top, detail=True)
            named = {_relative(place, top): _entry(place, info) for place, info in listed.items()}
            self._found = {name: entry for name, entry in named.items() if not is_hidden(name)}
        return self._found


def _relative(place: str, top: str) -> str:
    if place.rstrip("/") == top.rstrip("/"):
        return PurePosixPath(place).name
    return place.removeprefix(top.rstrip("/") + "/")


def _entry(place: str, info: Mapping[str, Any]) -> _Entry:
    changed = info.get("LastModified") or info.get("mtime")
    at = changed.timestamp() if isinstance(changed, datetime) else changed
    modified_ms = int(at * 1000) if isinstance(at, int | float) else None
    size_bytes = info.get("size")
    if size_bytes is None:
        raise InvalidInputError(
            f"It is not known how large {place[:200]!r} is", next_step="Download it and push it."
        )
    return _Entry(place, int(size_bytes), modified_ms)


@contextmanager
def _reaching() -> Iterator[None]:
    """Say plainly what goes wrong with files elsewhere."""
    try:
        yield
    except SignalboxError:
        raise
    except Exception as error:  # what fsspec drives raises its own kinds, botocore for one
        raise _lost(error) from error


def _lost(error: Exception) -> UnavailableError:
    return UnavailableError(
        f"The files cannot be read: {str(error)[:300] or type(error).__name__}",
        next_step="See whether they can be reached from this machine, then import them again.",
    )
