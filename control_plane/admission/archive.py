"""Zip archives read strictly: one meaning for every reader, bounded members, bounded sizes.

Layout: PKWARE APPNOTE 6.3.10. Readers disagree about archives that hold a name twice, that begin with other
data, or whose two directories differ; such archives are refused, so what we read is what torch reads.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from control_plane.admission import zip_layout
from control_plane.admission.base import Received, ReceivedFile, Refusal
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.tensors import Storage

MAX_MEMBERS: Final = 32_768
MAX_RATIO: Final = 20
"""Uncompressed to compressed size; only looked at above `FREE_BYTES`."""
FREE_BYTES: Final = 8 * 1024 * 1024
CHUNK_BYTES: Final = 1024 * 1024
SAVE_AGAIN: Final = "Save the model again and check that the whole file was copied."


def looks_like_zip(file: ReceivedFile) -> bool:
    """Tell whether *file* begins like a zip archive."""
    return file.head(4) == zip_layout.LOCAL_MAGIC


def member_names(received: Received) -> tuple[str, ...]:
    """Return the members' names if the only file is an archive that can be read, else none."""
    if len(received) != 1 or not looks_like_zip(received[0]):
        return ()
    try:
        with open_archive(received[0]) as archive:
            return archive.names
    except Refusal:
        return ()


class Archive:
    """The members of an opened archive, by name without the one top folder that torch puts them in."""

    def __init__(
        self,
        zipped: zipfile.ZipFile,
        members: dict[str, zipfile.ZipInfo],
        starts: dict[str, int],
        file: ReceivedFile,
    ) -> None:
        self._zipped = zipped
        self._members = members
        self._starts = starts
        self._location = file.location
        self.file = file.path

    @property
    def names(self) -> tuple[str, ...]:
        """Members' names, sorted."""
        return tuple(sorted(self._members))

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def size(self, name: str) -> int:
        """Uncompressed size of a member in bytes, as its directory entry says."""
        return self._members[name].file_size

    def storage(self, name: str) -> Storage:
        """Return where a member's bytes lie in the archive. Raises Refusal when it is compressed."""
        member = self._members[name]
        if member.compress_type != zipfile.ZIP_STORED:
            raise Refusal(
                ReasonCode.COMPRESSED_WEIGHTS,
                f"the member {name} of {self.file} is compressed; weights are read where they lie",
                "Save the weights again with torch.save or numpy.savez, which compress nothing.",
                file=self.file,
                member=name,
            )
        return Storage(self._location, self._starts[member.filename], member.file_size, member.CRC)

    def read(self, name: str, limit: int) -> bytes:
        """Return a member's bytes. Raises Refusal when it is larger than *limit* or damaged."""
        if self.size(name) > limit:
            raise Refusal(
                ReasonCode.TOO_LARGE_TO_READ,
                f"{name} in {self.file} has {self.size(name)} bytes; more than {limit} are not read",
                "Save the model again without extra data in it.",
                file=self.file,
            )
        return b"".join(self._chunks(name))

    def verify(self) -> None:
        """Read every member once and compare its checksum. Raises Refusal naming the damaged one."""
        for name in self.names:
            for _ in self._chunks(name):
                pass

    def _chunks(self, name: str) -> Iterator[bytes]:
        try:
            with self._zipped.open(self._members[name]) as member:
                while chunk := member.read(CHUNK_BYTES):
                    yield chunk
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
            raise broken(self.file, f"its member {name} is damaged") from None


@contextmanager
def open_archive(file: ReceivedFile, *, in_folder: bool = True) -> Iterator[Archive]:
    """Open *file* after checking its directory. Raises Refusal.

    *in_folder* says that all members lie in one top folder, as torch has it; others lie in no folder.
    """
    directory = zip_layout.directory(file, REFUSALS, max_members=MAX_MEMBERS)
    try:
        zipped = zipfile.ZipFile(file.location)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, struct.error, UnicodeError):
        raise broken(file.path, "its directory cannot be read") from None
    with zipped:
        members = zipped.infolist()
        if in_folder:
            _check_one_folder(members, file)
            _check_cases(members, file)
        _check_members(members, file)
        starts = zip_layout.starts(members, directory, file, REFUSALS)
        named = _without_top(members) if in_folder else {member.filename: member for member in members}
        yield Archive(zipped, named, starts, file)


def broken(file: str, why: str) -> Refusal:
    """Return the refusal of a damaged or cut archive."""
    return Refusal(ReasonCode.BROKEN_ARCHIVE, f"{file} is damaged or cut: {why}", SAVE_AGAIN, file=file)


def hostile(file: str, why: str) -> Refusal:
    """Return the refusal of an archive that torch did not write."""
    return Refusal(
        ReasonCode.HOSTILE_ARCHIVE,
        f"{file} is not an archive that torch writes: {why}",
        "Upload the file exactly as torch.jit.save or torch.export.save wrote it.",
        file=file,
    )


REFUSALS: Final = zip_layout.Refusals(broken, hostile)


def _check_one_folder(members: list[zipfile.ZipInfo], file: ReceivedFile) -> None:
    """Torch puts all members into one folder and writes no entries for folders; other archives differ."""
    names = [member.filename for member in members]
    tops = {name.partition("/")[0] for name in names}
    if len(tops) != 1 or any("/" not in name or name.endswith("/") for name in names):
        raise Refusal(
            ReasonCode.PLAIN_ARCHIVE,
            f"{file.path} is an archive that torch did not write",
            "Unpack it and upload the folder or the file in it.",
            file=file.path,
        )


def _check_cases(members: list[zipfile.ZipInfo], file: ReceivedFile) -> None:
    """Torch finds members by name without regard to case: no two may differ in it alone."""
    if len({member.filename.lower() for member in members}) != len(members):
        raise hostile(file.path, "it holds a name twice")


def _check_members(members: list[zipfile.ZipInfo], file: ReceivedFile) -> None:
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise hostile(file.path, "it holds a name twice")
    for member in members:
        _check_member(member, file)
    if sum(member.file_size for member in members) > MAX_RATIO * file.size_bytes + FREE_BYTES:
        raise _bomb(file, "all its members together")


def _check_member(member: zipfile.ZipInfo, file: ReceivedFile) -> None:
    name = member.filename
    parts = name.split("/")
    if not name.isprintable() or "\\" in name or ":" in name or {"", ".", ".."} & set(parts):
        raise hostile(file.path, f"a member is called {name[:80]!r}")
    if member.orig_filename != name:
        raise hostile(file.path, f"the name of the member {name[:80]!r} holds a zero byte")
    if not name.isascii() and not member.flag_bits & zip_layout.UTF8_FLAG:
        raise hostile(file.path, f"the name of the member {name[:80]!r} is not in UTF-8")
    if member.flag_bits & 0x2061:  # encrypted, patched, strongly encrypted, masked
        raise hostile(file.path, f"its member {name} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise hostile(file.path, f"its member {name} is compressed by method {member.compress_type}")
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        raise hostile(file.path, f"its member {name} has two sizes")
    if member.file_size > FREE_BYTES and member.file_size > MAX_RATIO * member.compress_size:
        raise _bomb(file, f"its member {name}")


def _bomb(file: ReceivedFile, what: str) -> Refusal:
    return Refusal(
        ReasonCode.ARCHIVE_BOMB,
        f"{file.path} would grow more than {MAX_RATIO} times: {what}",
        "Upload the file exactly as torch wrote it.",
        file=file.path,
    )


def _without_top(members: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    return {member.filename.partition("/")[2]: member for member in members}
