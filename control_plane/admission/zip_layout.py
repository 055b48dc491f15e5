"""Where a zip archive's directory and members lie: refused unless every reader must find the same.

Layout: PKWARE APPNOTE 6.3.10. Readers look for the directory in different ways: Python takes the zip64 record
right before its locator and shifts offsets to fit, torch (miniz) follows the locator and counts entries. So
both must lead to one place, and the directory and its members must fill the file from byte 0 to its end.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final
from zipfile import ZipInfo

from control_plane.admission.base import ReceivedFile, Refusal

LOCAL_MAGIC: Final = b"PK\x03\x04"
LOCAL_RECORD: Final = struct.Struct("<4s5H3L2H")
END_MAGIC: Final = b"PK\x05\x06"
END_RECORD: Final = struct.Struct("<4s4H2LH")
LOCATOR_MAGIC: Final = b"PK\x06\x07"
ZIP64_LOCATOR: Final = struct.Struct("<4sLQL")
ZIP64_END: Final = struct.Struct("<4sQ2H2L4Q")
ZIP64_START: Final = (b"PK\x06\x06", ZIP64_END.size - 12)
"""Magic and the bytes that follow the size field: no extensible data."""
ZIP64_BYTES: Final = ZIP64_END.size + ZIP64_LOCATOR.size
MAX_DIRECTORY_BYTES: Final = 16 * 1024 * 1024
DESCRIPTOR_FLAG: Final = 0x0008
DESCRIPTOR_BYTES: Final = frozenset({12, 16, 20, 24})
"""Sizes of what may follow a member's content when its flags say so: checksum and sizes."""
UTF8_FLAG: Final = 0x0800

Refuse = Callable[[str, str], Refusal]
"""Makes the refusal of the file with this name, for this reason."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """What a caller says of archives that are cut, and of those that could be read in two ways."""

    broken: Refuse
    hostile: Refuse


@dataclass(frozen=True, slots=True)
class Directory:
    """The central directory, as both of its end records have it."""

    count: int
    size: int
    offset: int


def directory(file: ReceivedFile, refusals: Refusals, *, max_members: int) -> Directory:
    """Find the directory before anything parses it. Raises Refusal."""
    end = file.size_bytes - END_RECORD.size
    if end < 0:
        raise refusals.broken(file.path, "it is too short")
    with file.location.open("rb") as raw:
        raw.seek(max(0, end - ZIP64_BYTES))
        tail = raw.read(ZIP64_BYTES + END_RECORD.size)
    magic, *disks, here, count, size, offset, comment = END_RECORD.unpack(tail[-END_RECORD.size :])
    if magic != END_MAGIC or comment:
        raise refusals.broken(file.path, "its directory is not at its end")
    narrow = (here, count, size, offset)
    wide = _zip64(tail[: -END_RECORD.size], end - ZIP64_BYTES, narrow, file, refusals)
    here, count, size, offset = wide or narrow
    if count > max_members or size > MAX_DIRECTORY_BYTES:
        raise refusals.hostile(file.path, f"it declares {count} members and a directory of {size} bytes")
    if any(disks) or here != count or offset + size != (end - ZIP64_BYTES if wide else end):
        raise refusals.hostile(file.path, "its directory does not lie at its end, or other data comes first")
    return Directory(count, size, offset)


Fields = tuple[int, int, int, int]
"""Members on this disk, members, size of the directory, its offset."""


def _zip64(
    records: bytes, start: int, narrow: Fields, file: ReceivedFile, refusals: Refusals
) -> Fields | None:
    """Return what the zip64 record at *start* says, None where there is none. Raises Refusal."""
    if not records[-ZIP64_LOCATOR.size :].startswith(LOCATOR_MAGIC):
        return None
    _, disk, named, _ = ZIP64_LOCATOR.unpack(records[-ZIP64_LOCATOR.size :])
    if disk or named != start:
        raise refusals.hostile(file.path, "it names another place for its directory than where it lies")
    magic, size, _, _, *disks, here, count, length, offset = ZIP64_END.unpack_from(records)
    wide = (here, count, length, offset)
    if (magic, size) != ZIP64_START or any(disks) or not _agree(narrow, wide):
        raise refusals.hostile(file.path, "the two records at its end differ")
    return wide


def _agree(narrow: Fields, wide: Fields) -> bool:
    """Tell whether each narrow field says the same or that the wide one holds it."""
    limits = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    return all(ours in (theirs, limit) for ours, theirs, limit in zip(narrow, wide, limits, strict=True))


def starts(
    entries: Sequence[ZipInfo], found: Directory, file: ReceivedFile, refusals: Refusals
) -> dict[str, int]:
    """Return where members' contents begin, by full name.

    Checks that members fill the file from byte 0 to the directory and are called alike in both places.
    """
    if len(entries) != found.count:
        raise refusals.hostile(file.path, f"it declares {found.count} members and names {len(entries)}")
    begun: dict[str, int] = {}
    position, may_be_described = 0, False
    with file.location.open("rb") as raw:
        for entry in sorted(entries, key=lambda entry: entry.header_offset):
            _check_gap(entry.header_offset - position, may_be_described, file, refusals)
            raw.seek(entry.header_offset)
            begun[entry.filename] = entry.header_offset + _header_bytes(raw, entry, file, refusals)
            position = begun[entry.filename] + entry.compress_size
            may_be_described = bool(entry.flag_bits & DESCRIPTOR_FLAG)
    _check_gap(found.offset - position, may_be_described, file, refusals)
    return begun


def _check_gap(gap: int, described: bool, file: ReceivedFile, refusals: Refusals) -> None:  # noqa: FBT001  a fact of the entry before
    if gap and not (described and gap in DESCRIPTOR_BYTES):
        raise refusals.hostile(file.path, "its members overlap, follow other data or hide data between them")


def _header_bytes(raw: BinaryIO, entry: ZipInfo, file: ReceivedFile, refusals: Refusals) -> int:
    """Return the bytes before a member's content: header, name and extra field."""
    header = raw.read(LOCAL_RECORD.size)
    if len(header) < LOCAL_RECORD.size or not header.startswith(LOCAL_MAGIC):
        raise refusals.broken(file.path, "a member is not where its directory says")
    *_, name_size, extra_size = LOCAL_RECORD.unpack(header)
    encoding = "utf-8" if entry.flag_bits & UTF8_FLAG else "cp437"
    if raw.read(name_size) != entry.orig_filename.encode(encoding, "replace"):
        raise refusals.hostile(file.path, f"its member {entry.filename[:80]!a} has two names")
    return LOCAL_RECORD.size + int(name_size) + int(extra_size)
