"""Which paths and URLs an upload may be fetched from. Pure: callers resolve paths themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from control_plane.errors import InvalidInputError

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_LOCAL: Final = frozenset({"file", "local"})


def is_url(reference: str) -> bool:
    """Whether *reference* is a URL, not a path on this machine."""
    return _URL.match(reference) is not None or "::" in reference


def check_url(url: str, allowed: Sequence[str]) -> str:
    """Return *url* if it lies below one of *allowed*, else raise InvalidInputError saying what to set.

    Below means: the same scheme and host, and a path that continues the allowed one at a slash. URLs with
    user names, other percent-encodings of dots and slashes, `..`, and chains (`zip::s3://…`) are refused
    whatever is allowed.
    """
    problem = _problem(url)
    if problem:
        raise InvalidInputError(f"{_shown(url)} is not usable: {problem}")
    if not any(_below(url, start) for start in allowed):
        raise InvalidInputError(
            f"Fetching from {_shown(url)} is not allowed",
            next_step="Add the start of the URL to SIGNALBOX_IMPORT_URLS and start Signalbox anew.",
        )
    return url


def check_path(path: Path, roots: Sequence[Path]) -> Path:
    """Return *path* if it lies in one of *roots*, else raise InvalidInputError saying what to set.

    Both must be absolute and free of links (as `Path.resolve` gives them).
    """
    if not any(path.is_relative_to(root) for root in roots):
        raise InvalidInputError(
            f"{_shown(str(path))} is in none of the folders that may be imported from",
            next_step="Add its folder to SIGNALBOX_IMPORT_ROOTS and start Signalbox anew.",
        )
    return path


def _problem(url: str) -> str | None:
    if "::" in url:
        return "it chains protocols"
    if any(ord(letter) <= ord(" ") or letter in "\\\x7f" for letter in url):
        return "it holds a space, a backslash or a control character"
    try:
        parts = urlsplit(url)
    except ValueError:
        return "it is malformed"
    if parts.scheme.lower() in _LOCAL:
        return "a file of this machine is named by its path, without file://"
    if "@" in parts.netloc:
        return "it names a user; credentials belong into the environment of the worker"
    if not parts.netloc:
        return "it names no host or bucket"
    if ".." in unquote(unquote(parts.path)).split("/"):
        return 'it holds ".."'
    return None


def _below(url: str, start: str) -> bool:
    given, wanted = urlsplit(url), urlsplit(start)
    if (given.scheme.lower(), given.netloc.lower()) != (wanted.scheme.lower(), wanted.netloc.lower()):
        return False
    base = wanted.path.rstrip("/")
    return given.path == base or given.path.startswith(f"{base}/")


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 200 else text[:200] + "…")
