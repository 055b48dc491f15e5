"""The members of a zip archive that people packed, read strictly and in the order in which they lie.

Layout: PKWARE APPNOTE 6.3.10. The directory must name every byte of the file: members lie one behind the
other from byte 0 to the directory, and each is called alike in its own header and in the directory.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Generator
from contextlib import closing
from typing import Final

from control_plane.admission import zip_layout
from control_plane.admission.base import ReceivedFile
from control_plane.admission.member_names import broken, hostile
from control_plane.admission.members import MAX_MEMBERS, Member

CHUNK_BYTES: Final = 1024 * 1024
CLOSED_FLAGS: Final = 0x2061
"""Encrypted, patched, strongly encrypted, masked."""
ERRORS: Final = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError,
    struct.error, IndexError,
)  # fmt: skip
"""What the standard library raises for damaged archives."""
REFUSALS: Final = zip_layout.Refusals(broken, hostile)


def is_zip(head: bytes) -> bool:
    """Tell whether a file that begins with *head* means to be a zip archive."""
    return head.startswith((zip_layout.LOCAL_MAGIC, zip_layout.END_MAGIC))


def names(file: ReceivedFile) -> tuple[str, ...]:
    """Return the members' names as the directory has them. Raises Refusal."""
    zipped, _ = _opened(file)
    with zipped:
        return tuple(zipped.namelist())


def members(file: ReceivedFile) -> Generator[Member]:
    """Yield the members of *file*; the content of one must be read before the next. Raises Refusal."""
    zipped, directory = _opened(file)
    with zipped:
        zip_layout.starts(zipped.infolist(), directory, file, REFUSALS)
        for entry in sorted(zipped.infolist(), key=lambda entry: entry.header_offset):
            _check_entry(entry, file)
            folder = entry.filename.endswith("/")
            with closing(_content(zipped, entry, file)) as content:
                yield Member(entry.filename, folder, entry.file_size, content)


def _opened(file: ReceivedFile) -> tuple[zipfile.ZipFile, zip_layout.Directory]:
    directory = zip_layout.directory(file, REFUSALS, max_members=MAX_MEMBERS)
    try:
        return zipfile.ZipFile(file.location), directory
    except ERRORS:
        raise broken(file.path, "its directory cannot be read") from None


def _check_entry(entry: zipfile.ZipInfo, file: ReceivedFile) -> None:
    name = entry.filename[:200]
    if entry.orig_filename != entry.filename:
        raise hostile(file.path, f"the name of its member {name[:80]!a} holds a zero byte", name)
    if entry.flag_bits & CLOSED_FLAGS:
        raise hostile(file.path, f"its member {name[:80]!a} is encrypted", name)
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise hostile(
            file.path, f"its member {name[:80]!a} is compressed by method {entry.compress_type}", name
        )
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise hostile(file.path, f"its member {name[:80]!a} is a link or a device", name)
    if entry.filename.endswith("/") and entry.file_size:
        raise hostile(file.path, f"its folder {name[:80]!a} has content", name)


def _content(zipped: zipfile.ZipFile, entry: zipfile.ZipInfo, file: ReceivedFile) -> Generator[bytes]:
    try:
        with zipped.open(entry) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    except ERRORS:
        raise broken(file.path, "its content does not fit its checksum", entry.filename[:200]) from None
