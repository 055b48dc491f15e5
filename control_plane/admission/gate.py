"""The gate: files in, one verdict out, whatever the files hold."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from control_plane.admission import catalog, empty_files, unpacking, unservable
from control_plane.admission.base import (
    Accepted,
    Format,
    LeftOut,
    Received,
    ReceivedFile,
    Refusal,
    Refused,
    Verdict,
)
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.unpacking import Advance, Unpacked

VERSION: Final = "1"
"""Rises with every change after which something stored might be judged otherwise."""
MAX_FILES: Final = 512
MAX_DEPTH: Final = 8


@dataclass(frozen=True, slots=True)
class Examined:
    """A verdict and the files it is about: those of the upload, or of the archive that the upload is."""

    verdict: Verdict
    received: Received


def judge(folder: Path, scratch: Path | None = None, advance: Advance | None = None) -> Verdict:
    """Judge all files below *folder*, or the one file that it is, without running anything of theirs.

    scratch: an empty folder to unpack an archive into; without one, archives are refused as `plain-archive`.
    advance: told the bytes that unpacking wrote; may raise.
    Always returns a verdict for what the files hold; OSError means our own disk failed, not the upload.
    """
    return examine(folder, scratch, advance).verdict


def examine(folder: Path, scratch: Path | None = None, advance: Advance | None = None) -> Examined:
    """Judge as `judge` does, and also say which files the verdict is about."""
    received: Received = ()
    try:
        found = collect(folder)
        received = found.received
        opened = _opened(found, scratch, advance) if scratch else found
        received = opened.received
        return Examined(_readable(_with_left_out(_judged(received), opened.left_out)), received)
    except Refusal as refusal:
        return Examined(readable(refusal.refused), received)


def _judged(received: Received) -> Verdict:
    format_ = _format_of(received)
    return format_.read(received) if format_ else unservable.explain(received)


def _format_of(received: Received) -> Format | None:
    return next((each for each in catalog.formats() if each.recognises(received)), None)


def _opened(found: Unpacked, scratch: Path, advance: Advance | None) -> Unpacked:
    """Return what is in the archive that the upload is, or the upload itself. Raises Refusal."""
    received, left_out = found.received, found.left_out
    for nesting in range(unpacking.MAX_NESTING + 1):
        if _format_of(received) or not unpacking.is_container(received):
            break
        if nesting == unpacking.MAX_NESTING:
            raise Refusal(
                ReasonCode.NESTED_ARCHIVE,
                f"{received[0].path} is an archive in an archive in an archive",
                "Unpack it and upload the folder in it.",
                file=received[0].path,
            )
        level = scratch / str(nesting)
        level.mkdir()
        opened = unpacking.unpack(received[0], level, advance)
        checked = _checked_files(opened.received)
        received, left_out = checked.received, left_out + opened.left_out + checked.left_out
    return Unpacked(received, left_out)


def _with_left_out(verdict: Verdict, more: tuple[LeftOut, ...]) -> Verdict:
    if isinstance(verdict, Accepted) and more:
        return replace(verdict, left_out=verdict.left_out + more)
    return verdict


def readable(refused: Refused) -> Refused:
    """Escape what an upload says in words of its own where that could not be shown or written as JSON."""
    return replace(
        refused,
        file=refused.file and printable(refused.file),
        member=refused.member and printable(refused.member),
        message=printable(refused.message),
        next_step=printable(refused.next_step),
    )


def _readable(verdict: Verdict) -> Verdict:
    if isinstance(verdict, Refused):
        return readable(verdict)
    left_out = tuple(replace(each, path=printable(each.path)) for each in verdict.left_out)
    return replace(verdict, left_out=left_out, labels=tuple(map(printable, verdict.labels)))


def printable(text: str) -> str:
    """Return *text* with everything escaped that no screen shows: control and half characters."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def collect(folder: Path) -> Unpacked:
    """List the plain files below *folder*, or the one file that it is, sorted by path; idle empty ones apart.

    Raises Refusal for anything else found there.
    """
    files: list[ReceivedFile] = []
    for file in _found(folder):
        files.append(file)
        if len(files) > MAX_FILES:
            raise Refusal(
                ReasonCode.TOO_MANY_FILES,
                f"the upload holds more than {MAX_FILES} files",
                "Upload one model: a single file, or one Hugging Face folder.",
            )
    return _checked_files(tuple(sorted(files, key=lambda file: file.path)))


def _checked_files(files: Received) -> Unpacked:
    """Set the empty files apart that nothing needs. Raises Refusal when nothing else is there."""
    if not files:
        raise Refusal(ReasonCode.EMPTY_UPLOAD, "the upload holds no file", "Choose a file or a folder.")
    received, left_out = empty_files.sort_out(files)
    for file in received or files:
        if file.size_bytes == 0:
            raise Refusal(
                ReasonCode.EMPTY_FILE,
                f"{file.path} is empty",
                "Save the model again and check that the file has a size.",
                file=file.path,
            )
    return Unpacked(received, left_out)


def _found(folder: Path) -> Iterator[ReceivedFile]:
    status = folder.lstat()
    if stat.S_ISREG(status.st_mode):
        return iter((ReceivedFile(_checked(folder.name), folder, status.st_size),))
    return _walk(folder, "", 0)


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[ReceivedFile]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            mode = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(mode.st_mode):
                yield ReceivedFile(_checked(path), Path(entry.path), mode.st_size)
            elif stat.S_ISDIR(mode.st_mode) and depth < MAX_DEPTH:
                yield from _walk(Path(entry.path), path + "/", depth + 1)
            else:
                raise Refusal(
                    ReasonCode.NOT_A_FILE,
                    f"{path!r} is a link, a device or nested too deep",
                    "Upload plain files only: copy what a link points to in its place.",
                    file=path,
                )


def _checked(path: str) -> str:
    if path.isprintable() and "\\" not in path:
        return path
    raise Refusal(
        ReasonCode.UNSAFE_NAME,
        f"the file name {path!r} holds control characters, backslashes or broken text",
        "Rename the file: letters, digits, dots, hyphens and underscores are safe.",
        file=path.encode(errors="backslashreplace").decode(),
    )
