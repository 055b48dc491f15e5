"""Archives that people packed: zip, tar, tar.gz or one compressed file, unpacked to be judged as a folder.

Nothing in an archive chooses where on our disk a byte goes: members are written to numbered files, and what
they are called is kept apart from where they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from control_plane.admission import tar_members, zip_members
from control_plane.admission.base import LeftOut, Received, ReceivedFile, Refusal
from control_plane.admission.gzip_stream import GzipStream, is_compressed
from control_plane.admission.member_names import PACK_AGAIN, Names, hostile, plain
from control_plane.admission.members import MAX_MEMBERS, Member
from control_plane.admission.reasons import ReasonCode

MAX_NESTING: Final = 2
"""An archive, and one archive in it."""
MAX_RATIO: Final = 20
"""Unpacked to packed size; only looked at above `FREE_BYTES`."""
FREE_BYTES: Final = 8 * 1024 * 1024
SEPARATOR: Final = "!/"
"""Stands in names between an archive and a member of it."""
TORCH_MEMBERS: Final = frozenset(
    {
        "data.pkl", "constants.pkl", "archive_format", "archive_version", "byteorder", ".data/version",
        ".data/extern_modules", ".data/serialization_id", "serialized_exported_program.json",
    }
)  # fmt: skip
"""Members by which a zip is known as torch's own, inside its top folder or without one."""
OTHER_SUFFIXES: Final = (".keras", ".npz")
"""Zips that are one model each, known by another reader."""
JUNK_FOLDER: Final = "__MACOSX"
JUNK: Final = (".DS_Store", "Thumbs.db", "desktop.ini")

Advance = Callable[[int], object]
"""Told the bytes written since it was last told; may raise."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What an archive held."""

    received: Received
    left_out: tuple[LeftOut, ...]
    """What file managers add to archives."""


@dataclass
class _Budget:
    """How much an archive may still grow."""

    archive: str
    left: int
    advance: Advance | None

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise Refusal(
                ReasonCode.ARCHIVE_BOMB,
                f"{self.archive} grows more than {MAX_RATIO} times when it is unpacked",
                PACK_AGAIN,
                file=self.archive,
            )
        if self.advance:
            self.advance(count)


def is_container(received: Received) -> bool:
    """Tell whether the upload is one archive that people packed, not one that torch or another tool wrote."""
    if len(received) != 1 or received[0].name.lower().endswith(OTHER_SUFFIXES):
        return False
    (file,) = received
    head = file.head(tar_members.BLOCK)
    if zip_members.is_zip(head):
        return not _is_torchs(file)
    return is_compressed(head) or tar_members.is_tar(head)


def unpack(file: ReceivedFile, folder: Path, advance: Advance | None = None) -> Unpacked:
    """Write the members of *file* below *folder*, which exists and is empty, and list them. Raises Refusal.

    *advance* is told how many bytes were written.
    """
    budget = _Budget(file.path, file.size_bytes * MAX_RATIO + FREE_BYTES, advance)
    names = Names(file.path)
    received: list[ReceivedFile] = []
    left_out: list[LeftOut] = []
    with _members(file) as found:
        for number, member in enumerate(found):
            name = _checked(member, number, names, file.path)
            if member.is_folder:
                continue
            location = folder / f"{number:05d}"
            path, size = f"{file.path}{SEPARATOR}{name}", _write(member, location, budget)
            if _is_junk(name):
                left_out.append(LeftOut(path, size, "written by a file manager"))
            else:
                received.append(ReceivedFile(path, location, size))
    _check_legacy(file.path, {each.path.rpartition(SEPARATOR)[2] for each in received})
    return Unpacked(tuple(sorted(received, key=lambda each: each.path)), tuple(left_out))


def _checked(member: Member, number: int, names: Names, archive: str) -> str:
    """Return the member's plain name; *number* counts members from 0. Raises Refusal."""
    if number >= MAX_MEMBERS:
        raise hostile(archive, f"it holds more than {MAX_MEMBERS} members")
    name = plain(member.name, archive)
    if name:
        names.add(name, is_folder=member.is_folder)
    elif not member.is_folder:
        raise hostile(archive, "a member has no name")
    return name


@contextmanager
def _members(file: ReceivedFile) -> Iterator[Iterator[Member]]:
    head = file.head(tar_members.BLOCK)
    if zip_members.is_zip(head):
        with closing(zip_members.members(file)) as found:
            yield found
        return
    with file.location.open("rb") as raw:
        if tar_members.is_tar(head):
            yield tar_members.members(raw.read, file.path)
        else:
            yield _of_gzip(raw, file)


def _of_gzip(raw: BinaryIO, file: ReceivedFile) -> Iterator[Member]:
    """Yield the members of a compressed tar, or the one file that was compressed."""
    stream = GzipStream(raw, file.path)
    first = stream.read(tar_members.BLOCK)
    read = _with_first(first, stream.read)
    if tar_members.is_tar(first):
        yield from tar_members.members(read, file.path)
    else:
        yield Member(
            file.name[:-3] if file.name.lower().endswith(".gz") else file.name, False, None, _all(read)
        )


def _with_first(first: bytes, read: tar_members.Read) -> tar_members.Read:
    """Return a function that gives *first* again and then what *read* gives."""
    held = bytearray(first)

    def again(count: int) -> bytes:
        taken = bytes(held[:count])
        del held[:count]
        return taken + read(count - len(taken)) if len(taken) < count else taken

    return again


def _all(read: tar_members.Read) -> Iterator[bytes]:
    while chunk := read(tar_members.CHUNK_BYTES):
        yield chunk


def _write(member: Member, target: Path, budget: _Budget) -> int:
    """Write the member's content to *target* and return its size in bytes."""
    size = 0
    with target.open("wb") as file:
        for chunk in member.content:
            budget.take(len(chunk))
            size += len(chunk)
            file.write(chunk)
    if member.size_bytes not in (None, size):
        raise hostile(budget.archive, f"its member {member.name[:80]!a} has two sizes", member.name[:200])
    return size


def _is_junk(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == JUNK_FOLDER or parts[-1] in JUNK or parts[-1].startswith("._")


def _is_torchs(file: ReceivedFile) -> bool:
    """Tell a zip that torch wrote; an unreadable one is left to torch's reader, which explains it."""
    try:
        names = zip_members.names(file)
    except Refusal:
        return True
    inner = {name.partition("/")[2] for name in names} | set(names)
    return not TORCH_MEMBERS.isdisjoint(inner)


def _check_legacy(file: str, names: set[str]) -> None:
    """Refuse what torch.save wrote before it wrote pickles alone: a tar with pickles in it."""
    if {"pickle", "storages", "tensors"} <= names:
        raise Refusal(
            ReasonCode.RAW_PICKLE,
            f"{file} was saved by torch 0.1, as pickles in a tar",
            "Load it where you trust it and save its state_dict with a current torch.",
            file=file,
        )
