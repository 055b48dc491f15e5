"""What the readers of archives tell of one member, whatever the archive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_MEMBERS: Final = 4096


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive; its content can be read once, before the next member is asked for."""

    name: str
    """As the archive has it: not yet checked."""
    is_folder: bool
    size_bytes: int | None
    """What the archive says; None where it does not say (a compressed single file)."""
    content: Iterator[bytes]
