"""The gate: files in, one verdict out, whatever the files hold."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from control_plane.admission import catalog, unservable
from control_plane.admission.base import Received, ReceivedFile, Refusal, Verdict
from control_plane.admission.reasons import ReasonCode

MAX_FILES: Final = 512
MAX_DEPTH: Final = 8


def judge(folder: Path) -> Verdict:
    """Judge all files below *folder* without running anything of theirs.

    Always returns a verdict for what the files hold; OSError means our own disk failed, not the upload.
    """
    try:
        received = collect(folder)
        for format_ in catalog.formats():
            if format_.recognises(received):
                return format_.read(received)
        return unservable.explain(received)
    except Refusal as refusal:
        return refusal.refused


def collect(folder: Path) -> Received:
    """List the plain files below *folder*, sorted by path. Raises Refusal for anything else found there."""
    files: list[ReceivedFile] = []
    for file in _walk(folder, "", 0):
        files.append(file)
        if len(files) > MAX_FILES:
            raise Refusal(
                ReasonCode.TOO_MANY_FILES,
                f"the upload holds more than {MAX_FILES} files",
                "Upload one model: a single file, or one Hugging Face folder.",
            )
    if not files:
        raise Refusal(ReasonCode.EMPTY_UPLOAD, "the upload holds no file", "Choose a file or a folder.")
    for file in files:
        if file.size_bytes == 0:
            raise Refusal(
                ReasonCode.EMPTY_FILE,
                f"{file.path} is empty",
                "Save the model again and check that the file has a size.",
                file=file.path,
            )
    return tuple(sorted(files, key=lambda file: file.path))


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
