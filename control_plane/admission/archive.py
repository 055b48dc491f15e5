"""Zip archives read strictly: one meaning for every reader, bounded members, bounded sizes.

Layout: PKWARE APPNOTE 6.3.10. Readers disagree about archives that hold a name twice, that begin with other
data, or whose two directories differ; such archives are refused, so what we read is what torch reads.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from control_plane.admission.base import Received, ReceivedFile, Refusal
from control_plane.admission.reasons import ReasonCode

LOCAL_HEADER: Final = b"PK\x03\x04"
END_RECORD: Final = struct.Struct("<4s4H2LH")
LOCAL_RECORD: Final = struct.Struct("<4s5H3L2H")
END_MAGIC: Final = b"PK\x05\x06"
ZIP64_LOCATOR: Final = struct.Struct("<4sLQL")
ZIP64_END: Final = struct.Struct("<4sQ2H2L4Q")
MAX_MEMBERS: Final = 32_768
MAX_DIRECTORY_BYTES: Final = 16 * 1024 * 1024
MAX_RATIO: Final = 20
"""Uncompressed to compressed size; only looked at above `FREE_BYTES`."""
FREE_BYTES: Final = 8 * 1024 * 1024
CHUNK_BYTES: Final = 1024 * 1024
SAVE_AGAIN: Final = "Save the model again and check that the whole file was copied."


def looks_like_zip(file: ReceivedFile) -> bool:
    """Tell whether *file* begins like a zip archive."""
    return file.head(4) == LOCAL_HEADER


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

    def __init__(self, zipped: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], file: str) -> None:
        self._zipped = zipped
        self._members = members
        self.file = file

    @property
    def names(self) -> tuple[str, ...]:
        """Members' names, sorted."""
        return tuple(sorted(self._members))

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def size(self, name: str) -> int:
        """Uncompressed size of a member in bytes, as its directory entry says."""
        return self._members[name].file_size

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
def open_archive(file: ReceivedFile) -> Iterator[Archive]:
    """Open *file* after checking its directory. Raises Refusal."""
    _check_end(file)
    try:
        zipped = zipfile.ZipFile(file.location)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, struct.error, UnicodeError):
        raise broken(file.path, "its directory cannot be read") from None
    with zipped:
        members = zipped.infolist()
        _check_one_folder(members, file)
        _check_members(members, file)
        _check_places(members, file)
        yield Archive(zipped, _without_top(members), file.path)


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


def _check_end(file: ReceivedFile) -> None:
    """Check the directory's place and size before anything parses it."""
    tail = _tail(file)
    signature, _, _, _, count, size, offset, comment = END_RECORD.unpack(tail[-END_RECORD.size :])
    if signature != END_MAGIC or comment:
        raise broken(file.path, "its directory is not at its end")
    if count == 0xFFFF or 0xFFFFFFFF in (size, offset):
        count, size = _zip64_end(file, tail)
    if count > MAX_MEMBERS or size > MAX_DIRECTORY_BYTES:
        raise hostile(file.path, f"it declares {count} members and a directory of {size} bytes")


def _tail(file: ReceivedFile) -> bytes:
    """Return the bytes that hold the end record and, before it, the zip64 records."""
    wanted = END_RECORD.size + ZIP64_LOCATOR.size + ZIP64_END.size
    if file.size_bytes < END_RECORD.size:
        raise broken(file.path, "it is too short")
    with file.location.open("rb") as raw:
        raw.seek(max(0, file.size_bytes - wanted))
        return raw.read(wanted)


def _zip64_end(file: ReceivedFile, tail: bytes) -> tuple[int, int]:
    """Return member count and directory size of the zip64 record, which must lie right before the end."""
    start = len(tail) - END_RECORD.size - ZIP64_LOCATOR.size - ZIP64_END.size
    if start < 0 or not tail.startswith(b"PK\x06\x06", start):
        raise broken(file.path, "its directory is not at its end")
    fields = ZIP64_END.unpack_from(tail, start)
    return fields[7], fields[8]


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


def _check_members(members: list[zipfile.ZipInfo], file: ReceivedFile) -> None:
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise hostile(file.path, "it holds a name twice")
    if len(members) > MAX_MEMBERS:
        raise hostile(file.path, f"it holds {len(members)} members")
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


def _check_places(members: list[zipfile.ZipInfo], file: ReceivedFile) -> None:
    """Check that members lie one behind the other from byte 0 and are called alike in both directories."""
    position = 0
    with file.location.open("rb") as raw:
        for member in sorted(members, key=lambda member: member.header_offset):
            if member.header_offset < position or (position == 0 and member.header_offset != 0):
                raise hostile(
                    file.path, f"its member {member.filename} overlaps another or follows other data"
                )
            raw.seek(member.header_offset)
            position = member.header_offset + _local_size(raw.read(LOCAL_RECORD.size), raw.read, member, file)
    if position > file.size_bytes:
        raise broken(file.path, "it ends in the middle of a member")


def _local_size(
    header: bytes, read: Callable[[int], bytes], member: zipfile.ZipInfo, file: ReceivedFile
) -> int:
    """Return the bytes a member takes in the file: header, name, extra field and content."""
    if len(header) < LOCAL_RECORD.size or header[:4] != LOCAL_HEADER:
        raise broken(file.path, f"its member {member.filename} is not where its directory says")
    *_, name_size, extra_size = LOCAL_RECORD.unpack(header)
    if read(name_size) != member.filename.encode():
        raise hostile(file.path, f"its member {member.filename} has two names")
    return LOCAL_RECORD.size + int(name_size) + int(extra_size) + member.compress_size


def _without_top(members: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    return {member.filename.partition("/")[2]: member for member in members}
