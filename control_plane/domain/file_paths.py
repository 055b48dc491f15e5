"""Which relative paths a file inside an upload may have. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from control_plane.errors import InvalidInputError

MAX_PATH_BYTES: Final = 1024
MAX_PART_BYTES: Final = 200
MAX_FILES: Final = 1000
SENT_HIDDEN: Final = frozenset({".metadata", ".hf_metadata"})
_DECODINGS: Final = 4
_DRIVE: Final = re.compile(r"[A-Za-z]:")


def is_hidden(path: str) -> bool:
    """Whether *path* is one that nobody means to send: in a hidden folder, or a hidden file.

    Distributed checkpoints keep their directory in `.metadata`, sharded ones a folder `.hf_metadata`.
    """
    return any(part.startswith(".") and part not in SENT_HIDDEN for part in path.split("/"))


def check_path(path: str) -> str:
    """Return *path* if it is a relative POSIX path that can only mean a file inside its folder.

    Spaces, any letters and sub-folders are fine. Refused: absolute paths, drive letters, empty parts, parts
    that start with "..", backslashes, control characters, parts over 200 bytes, and every spelling that
    becomes one of these after percent-decoding or Unicode NFKC folding. Raises InvalidInputError.
    """
    spelling = path
    for _ in range(_DECODINGS):
        problem = _problem(spelling) or _problem(unicodedata.normalize("NFKC", spelling))
        if problem:
            raise InvalidInputError(
                f"File name {_shown(path)} is not usable: {problem}",
                next_step="Rename the file; use a relative path with forward slashes.",
            )
        decoded = _decoded(path, spelling)
        if decoded == spelling:
            return path
        spelling = decoded
    raise InvalidInputError(
        f"File name {_shown(path)} is not usable: it is percent-encoded several times over"
    )


def check_paths(paths: Sequence[str]) -> None:
    """Check all *paths* of one upload, and that they can lie in one folder on any file system.

    Raises InvalidInputError for none or more than MAX_FILES, a bad path, one that appears twice (also in
    other case or Unicode form), or one that is both a file and a folder.
    """
    if not paths:
        raise InvalidInputError(
            "The upload names no file", next_step="Choose a file or a folder that holds one."
        )
    if len(paths) > MAX_FILES:
        raise InvalidInputError(f"{len(paths)} files are too many: at most {MAX_FILES} belong to one version")
    seen: dict[str, str] = {}
    for path in paths:
        folded = _folded(check_path(path))
        if folded in seen:
            raise InvalidInputError(f"{_shown(path)} and {_shown(seen[folded])} are the same file name")
        seen[folded] = path
    for folded, path in seen.items():
        for end in (index for index, letter in enumerate(folded) if letter == "/"):
            if folded[:end] in seen:
                raise InvalidInputError(
                    f"{_shown(seen[folded[:end]])} is a file and the folder of {_shown(path)}"
                )


def _decoded(path: str, spelling: str) -> str:
    try:
        return unquote(spelling, errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"File name {_shown(path)} is not usable: it is percent-encoded, but not to any text"
        ) from error


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _problem(path: str) -> str | None:
    if not path:
        return "it is empty"
    if "\\" in path:
        return "it holds a backslash"
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in path):
        return "it holds a control character"
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"it is longer than {MAX_PATH_BYTES} bytes"
    if path.startswith("/") or _DRIVE.match(path):
        return "it is an absolute path"
    return next((problem for part in path.split("/") if (problem := _part_problem(part))), None)


def _part_problem(part: str) -> str | None:
    if not part:
        return "a part between slashes is empty"
    if part == "." or part.startswith(".."):
        return 'a part of it is "." or starts with ".."'
    if part == "~":
        return "a part of it means somebody's home folder"
    if part != part.strip() or part.endswith("."):
        return "a part of it starts or ends with a space, or ends with a full stop"
    if len(part.encode()) > MAX_PART_BYTES:
        return f"a part of it is longer than {MAX_PART_BYTES} bytes"
    return None


def _shown(path: str) -> str:
    return ascii(path if len(path) <= 120 else path[:120] + "…")
