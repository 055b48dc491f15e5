"""Names of members of archives: which are plain, and which another reader could take differently. Pure."""

from __future__ import annotations

import unicodedata
from typing import Final

from control_plane.admission.base import Refusal
from control_plane.admission.reasons import ReasonCode

MAX_NAME_CHARS: Final = 1024
MAX_PARTS: Final = 32
"""Folders in folders, and the file."""
MAX_PART_BYTES: Final = 255
"""Longest part of a path that common file systems take."""
PACK_AGAIN: Final = (
    "Pack the files again with zip or tar, without links and with plain relative names, "
    "or upload the folder itself."
)


def hostile(archive: str, why: str, member: str | None = None) -> Refusal:
    """Return the refusal of an archive that could mean something else to another reader."""
    return Refusal(
        ReasonCode.HOSTILE_ARCHIVE,
        f"{archive} is not a plain archive: {why}",
        PACK_AGAIN,
        file=archive,
        member=member,
    )


def broken(archive: str, why: str, member: str | None = None) -> Refusal:
    """Return the refusal of an archive that is damaged or cut."""
    return Refusal(
        ReasonCode.BROKEN_ARCHIVE,
        f"{archive} is damaged or cut: {why}",
        "Pack the files again and check that the whole archive was copied.",
        file=archive,
        member=member,
    )


def plain(name: str, archive: str) -> str:
    """Return the member's *name* without `./` in front and `/` behind; empty for the top folder itself.

    Raises Refusal for a name that is absolute, leads out of its folder, or holds characters that systems
    read differently.
    """
    shown = ascii(name[:80])
    if name.startswith("/") or "\\" in name or ":" in name or (name and not name.isprintable()):
        raise hostile(archive, f"a member is called {shown}", name[:200])
    parts = [part for part in name.removesuffix("/").split("/") if part != "."]
    if ".." in parts or (parts != [""] and "" in parts):
        raise hostile(archive, f"a member is called {shown}", name[:200])
    too_long = len(name) > MAX_NAME_CHARS or any(len(part.encode()) > MAX_PART_BYTES for part in parts)
    if too_long or len(parts) > MAX_PARTS:
        raise hostile(archive, f"the name of its member {shown} is too long or too deep", name[:200])
    return "/".join(parts)


class Names:
    """The names seen so far in one archive: no two may fall together on any common file system."""

    def __init__(self, archive: str) -> None:
        self._archive = archive
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, name: str, *, is_folder: bool) -> None:
        """Take *name* (as `plain` returns it). Raises Refusal when it collides with an earlier one."""
        key = folded(name)
        parents = {key[:at] for at, char in enumerate(key) if char == "/"}
        if key in self._files or parents & self._files or (not is_folder and key in self._folders):
            raise hostile(self._archive, f"it holds {name[:80]!a} twice", name[:200])
        self._folders |= parents
        (self._folders if is_folder else self._files).add(key)


def folded(name: str) -> str:
    """Return *name* as a file system that ignores case and composition would compare it."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
