"""Scripts and style sheets of the components, read from beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent


def text(name: str) -> str:
    """The content of one file of this folder."""
    return (FOLDER / name).read_text("utf-8")
