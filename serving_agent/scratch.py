"""Folders for what libraries must find on disk while this process lives; private to it, gone with it."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_folders: Final[list[Path]] = []
_roots: Final[list[Path]] = []


def keep_in(root: Path) -> None:
    """Make all folders in *root* from now on, which whoever started this process removes if it is killed.

    Where *root* cannot be written to they go where temporary files go.
    """
    if os.access(root, os.W_OK):
        _roots[:] = [root]


def folder(purpose: str) -> Path:
    """Return a new empty folder that only this user may enter; *purpose* is part of its name."""
    made = Path(tempfile.mkdtemp(prefix=f"signalbox-{purpose}-", dir=_roots[0] if _roots else None))
    _folders.append(made)
    return made


@atexit.register
def remove() -> None:
    """Remove every folder; for processes that end without Python's own exit handlers."""
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)
