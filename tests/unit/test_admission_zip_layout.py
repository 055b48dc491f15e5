"""Archives that two readers would read differently are refused; what torch and zip write comes through."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from control_plane.admission import archive, zip_members
from control_plane.admission.base import ReceivedFile, Refusal
from control_plane.admission.reasons import ReasonCode

END = struct.Struct("<4s4H2LH")
WIDE_END = struct.Struct("<4sQ2H2L4Q")
LOCATOR = struct.Struct("<4sLQL")
TWO = {"m/a": b"first", "m/b": b"second"}


def parts(contents: Mapping[str, bytes], at: int = 0) -> tuple[bytes, bytes]:
    """Members that lie at *at* in a file, and the directory that names them."""
    held = io.BytesIO(bytes(at))
    held.seek(at)
    with zipfile.ZipFile(held, "a") as zipped:
        for name, content in contents.items():
            zipped.writestr(zipfile.ZipInfo(name), content)
    whole = held.getvalue()
    *_, size, offset, _ = END.unpack(whole[-END.size :])
    assert len(whole) == offset + size + END.size
    return whole[at:offset], whole[offset : offset + size]


def narrow(count: int, size: int, offset: int) -> bytes:
    return END.pack(b"PK\5\6", 0, 0, count, count, size, offset, 0)


def wide(count: int, size: int, offset: int, *, disk: int = 0, length: int = 44) -> bytes:
    return WIDE_END.pack(b"PK\6\6", length, 45, 45, disk, 0, count, count, size, offset)


def locator(offset: int) -> bytes:
    return LOCATOR.pack(b"PK\6\7", 0, offset, 1)


def received(content: bytes, folder: Path) -> ReceivedFile:
    path = folder / "upload"
    path.write_bytes(content)
    return ReceivedFile("upload", path, len(content))


def both_read(content: bytes, folder: Path) -> dict[str, bytes]:
    """What the two readers make of *content*, which must be the same. Raises Refusal where both refuse."""
    file = received(content, folder)
    refusals: list[Refusal] = []
    found: list[dict[str, bytes]] = []
    try:
        with archive.open_archive(file, in_folder=False) as opened:
            found.append({name: opened.read(name, 100) for name in opened.names})
    except Refusal as refusal:
        refusals.append(refusal)
    try:
        found.append({each.name: b"".join(each.content) for each in zip_members.members(file)})
    except Refusal as refusal:
        refusals.append(refusal)
    if refusals:
        assert not found
        assert len({refusal.refused.code for refusal in refusals}) == 1
        raise refusals[0]
    assert found[0] == found[1]
    return found[0]


def with_records(*, disk: int = 0, named: int = 0, length: int = 44, count: int = 2) -> bytes:
    """An archive with zip64 records, as torch writes them, changed as told."""
    members, directory = parts(TWO)
    at = len(members)
    return b"".join((
        members, directory, wide(count, len(directory), at, disk=disk, length=length),
        locator(at + len(directory) + named), narrow(2, len(directory), at),
    ))  # fmt: skip


def two_directories() -> bytes:
    """An archive in which Python finds one set of members and a reader that follows the locator another."""
    shown, shown_directory = parts({"m/a": b"harmless"})
    hidden, hidden_directory = parts({"m/a": b"hostile!"}, at=len(shown))
    content = shown + hidden
    first = len(content)
    content += hidden_directory + wide(1, len(hidden_directory), first)
    named = len(content) - WIDE_END.size
    last = len(content)
    content += shown_directory + wide(1, len(shown_directory), last) + locator(named)
    return content + narrow(1, len(shown_directory), last)


def test_zip64_records_come_through(tmp_path: Path) -> None:
    assert both_read(with_records(), tmp_path) == TWO


def test_a_second_directory_is_refused_that_python_does_not_see(tmp_path: Path) -> None:
    content = two_directories()
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        assert zipped.read("m/a") == b"harmless"
    with pytest.raises(Refusal, match="another place") as raised:
        both_read(content, tmp_path)
    assert raised.value.refused.code == ReasonCode.HOSTILE_ARCHIVE


@pytest.mark.parametrize(
    "content",
    [
        with_records(named=1), with_records(named=-1), with_records(disk=1), with_records(length=45),
        with_records(count=1), with_records(count=3),
    ],
)  # fmt: skip
def test_zip64_records_that_contradict_are_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as raised:
        both_read(content, tmp_path)
    assert raised.value.refused.code == ReasonCode.HOSTILE_ARCHIVE


def test_a_locator_without_its_record_is_refused(tmp_path: Path) -> None:
    members, directory = parts(TWO)
    at = len(members)
    content = members + directory + locator(at) + narrow(2, len(directory), at)
    with pytest.raises(Refusal, match="another place"):
        both_read(content, tmp_path)


def test_fewer_members_declared_than_named_are_refused(tmp_path: Path) -> None:
    members, directory = parts(TWO)
    content = members + directory + narrow(1, len(directory), len(members))
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        assert len(zipped.namelist()) == 2
    with pytest.raises(Refusal, match="declares 1 members and names 2"):
        both_read(content, tmp_path)


@pytest.mark.parametrize("size", [1, 16, 46, 200])
def test_bytes_that_no_member_explains_are_refused(size: int, tmp_path: Path) -> None:
    members, directory = parts(TWO)
    content = members + bytes(size) + directory + narrow(2, len(directory), len(members) + size)
    with pytest.raises(Refusal, match="hide data"):
        both_read(content, tmp_path)


def test_data_before_the_archive_is_refused_though_python_shifts_offsets(tmp_path: Path) -> None:
    members, directory = parts(TWO)
    content = members[:4] + members + directory + narrow(2, len(directory), len(members))
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        assert zipped.read("m/a") == b"first"
    with pytest.raises(Refusal, match="other data comes first"):
        both_read(content, tmp_path)


def test_what_is_written_to_a_stream_comes_through(tmp_path: Path) -> None:
    class Stream(io.RawIOBase):
        """Cannot go back, so that sizes follow the contents."""

        def __init__(self) -> None:
            self.held = b""

        def writable(self) -> bool:
            return True

        def write(self, content: bytes) -> int:  # type: ignore[override] # only bytes come
            self.held += bytes(content)
            return len(content)

    stream = Stream()
    with zipfile.ZipFile(stream, "w") as zipped:
        for name, content in TWO.items():
            zipped.writestr(name, content)
    assert both_read(stream.held, tmp_path) == TWO


def test_torch_finds_members_without_regard_to_case_so_no_two_may_differ_in_it(tmp_path: Path) -> None:
    members, directory = parts({"m/code/a.py": b"1", "m/code/A.py": b"2"})
    content = members + directory + narrow(2, len(directory), len(members))
    file = received(content, tmp_path)
    with pytest.raises(Refusal, match="twice"), archive.open_archive(file):
        pass
    with archive.open_archive(file, in_folder=False) as opened:
        assert len(opened.names) == 2
