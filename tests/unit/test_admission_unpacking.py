"""Archives that people pack are unpacked as they mean it; those that mean two things are refused."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.admission import gate, unpacking
from control_plane.admission.base import ReceivedFile, Refusal
from control_plane.admission.member_names import Names, plain
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.unpacking import FREE_BYTES, unpack

Contents = dict[str, bytes]
PLAIN: Contents = {"m/config.json": b"{}", "m/sub/weights.bin": bytes(range(256)) * 9, "m/empty.txt": b""}


def zipped(contents: Contents, *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(contents: Contents, kind: int = tarfile.PAX_FORMAT, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=kind) as archive:  # type: ignore[call-overload]
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def entry_tar(name: str, kind: bytes, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, link
        archive.addfile(entry)
    return buffer.getvalue()


def received(data: bytes, folder: Path, name: str = "a.zip") -> ReceivedFile:
    folder.mkdir(exist_ok=True)
    location = folder / "received"
    location.write_bytes(data)
    return ReceivedFile(name, location, len(data))


def opened(data: bytes, folder: Path, name: str = "a.zip") -> Contents:
    """What unpacking makes of *data*, by name in the archive."""
    file = received(data, folder, name)
    assert unpacking.is_container((file,))
    target = folder / "out"
    target.mkdir()
    found = unpack(file, target).received
    assert all(each.location.parent == target for each in found)
    assert all(each.location.stat().st_size == each.size_bytes for each in found)
    return {each.path.removeprefix(f"{name}!/"): each.location.read_bytes() for each in found}


def refusal(data: bytes, folder: Path) -> ReasonCode:
    file = received(data, folder)
    target = folder / "out"
    target.mkdir()
    with pytest.raises(Refusal) as caught:
        unpack(file, target)
    assert caught.value.refused.file == "a.zip"
    assert caught.value.refused.next_step.endswith(".")
    return caught.value.refused.code


PACKED: dict[str, Callable[[Contents], bytes]] = {
    "zip": zipped,
    "stored zip": lambda contents: zipped(contents, method=zipfile.ZIP_STORED),
    "ustar": lambda contents: tarred(contents, tarfile.USTAR_FORMAT),
    "gnu": lambda contents: tarred(contents, tarfile.GNU_FORMAT),
    "pax": tarred,
    "tar.gz": lambda contents: tarred(contents, mode="w:gz"),
    "gz in two parts": lambda contents: _in_two_parts(tarred(contents)),
}


def _in_two_parts(data: bytes) -> bytes:
    return gzip.compress(data[:700]) + gzip.compress(data[700:])


@pytest.mark.parametrize("way", PACKED)
def test_archives_hold_what_was_packed(way: str, tmp_path: Path) -> None:
    assert opened(PACKED[way](PLAIN), tmp_path) == PLAIN


@pytest.mark.parametrize("way", ["gnu", "pax", "zip"])
def test_long_and_foreign_names_come_through(way: str, tmp_path: Path) -> None:
    contents = {"a longer name/" * 20 + "name.json": b"1", "größe/ΔW.bin": b"2", f"{'x' * 180}/y": b"3"}
    assert opened(PACKED[way](contents), tmp_path) == contents


def test_zip_made_while_streaming_comes_through(tmp_path: Path) -> None:
    class Unseekable(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

        def seek(self, *_: int) -> int:
            raise OSError

    buffer = Unseekable()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in PLAIN.items():
            archive.writestr(name, content)
    assert opened(buffer.getvalue(), tmp_path) == PLAIN


def test_zip64_comes_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    assert opened(zipped(PLAIN, method=zipfile.ZIP_STORED), tmp_path) == PLAIN


def test_folders_and_dots_are_no_files(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in (".", "./m", "./m/sub"):
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
        archive.addfile(tarfile.TarInfo("./m/sub/x"), io.BytesIO())
    assert opened(buffer.getvalue(), tmp_path) == {"m/sub/x": b""}


def test_files_of_file_managers_are_left_out(tmp_path: Path) -> None:
    junk = {"__MACOSX/m/._x": b"1", "m/.DS_Store": b"2", "m/._config.json": b"3"}
    file = received(zipped({**junk, "m/x": b"4"}), tmp_path)
    (tmp_path / "out").mkdir()
    found = unpack(file, tmp_path / "out")
    assert [each.path for each in found.received] == ["a.zip!/m/x"]
    assert {each.path for each in found.left_out} == {f"a.zip!/{name}" for name in junk}


@pytest.mark.parametrize(
    ("data", "name"),
    [(gzip.compress(b"\x80\x04N.", mtime=0), "x.pkl.gz"), (zlib.compress(b"\x80\x04N."), "x.pkl")],
    ids=["gzip", "zlib"],
)
def test_one_compressed_file_is_a_member(data: bytes, name: str, tmp_path: Path) -> None:
    assert opened(data, tmp_path, name) == {"x.pkl": b"\x80\x04N."}


NAMES = [
    "../x", "a/../../x", "/etc/x", "a\\b", "C:/x", "c:x", "a\nb", "a//b", "a\x7fb", "x" * 300,
    "a/" * 33 + "b", "a/" * 600 + "b", "a/..",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize("way", ["zip", "pax"])
def test_hostile_names_are_refused(name: str, way: str, tmp_path: Path) -> None:
    assert refusal(PACKED[way]({name: b"x"}), tmp_path) == ReasonCode.HOSTILE_ARCHIVE


def test_zero_bytes_in_names_are_refused(tmp_path: Path) -> None:
    data = zipped({"aXb": b"x"}).replace(b"aXb", b"a\0b")
    assert refusal(data, tmp_path) == ReasonCode.HOSTILE_ARCHIVE


@pytest.mark.parametrize(
    "names",
    [("a", "a"), ("a", "A"), ("a", "a/b"), ("a/b", "a"), ("é", "e\u0301"), ("ß", "SS"), ("./a", "a")],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("tar", [True, False], ids=["tar", "zip"])
def test_names_that_fall_together_are_refused(names: tuple[str, str], tar: bool, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    if tar:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(name))
    else:
        with zipfile.ZipFile(buffer, "w") as zip_archive:
            for name in names:
                zip_archive.writestr(name, b"x")
    assert refusal(buffer.getvalue(), tmp_path) == ReasonCode.HOSTILE_ARCHIVE


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"S", b"V"]
)
def test_links_devices_and_sparse_files_are_refused(kind: bytes, tmp_path: Path) -> None:
    assert refusal(entry_tar("x", kind, "/etc/passwd"), tmp_path) == ReasonCode.HOSTILE_ARCHIVE


def test_link_in_zip_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    assert refusal(buffer.getvalue(), tmp_path) == ReasonCode.HOSTILE_ARCHIVE


def test_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"a": b"x"}))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert refusal(bytes(data), tmp_path) == ReasonCode.HOSTILE_ARCHIVE


@pytest.mark.parametrize("way", ["zip", "pax", "tar.gz"])
def test_bombs_are_refused_before_they_grow(way: str, tmp_path: Path) -> None:
    data = PACKED[way]({"zeros": bytes(8 * FREE_BYTES)})
    if way == "pax":
        data = gzip.compress(data)
    assert refusal(data, tmp_path) == ReasonCode.ARCHIVE_BOMB
    assert sum(each.stat().st_size for each in (tmp_path / "out").iterdir()) < 3 * FREE_BYTES


@pytest.mark.parametrize("way", ["zip", "pax"])
def test_too_many_members_are_refused(way: str, tmp_path: Path) -> None:
    data = PACKED[way]({f"m/{index}": b"" for index in range(4100)})
    assert refusal(data, tmp_path) == ReasonCode.HOSTILE_ARCHIVE


@pytest.mark.parametrize("way", PACKED)
def test_trailing_data_is_refused(way: str, tmp_path: Path) -> None:
    code = refusal(PACKED[way](PLAIN) + b"garbage", tmp_path)
    assert code in (ReasonCode.HOSTILE_ARCHIVE, ReasonCode.BROKEN_ARCHIVE)


def test_data_hidden_between_members_is_refused(tmp_path: Path) -> None:
    first, second = zipped({"a": b"x"}), zipped({"b": b"y"})
    body = first[: first.index(b"PK\x01\x02")] + b"hidden data of some size"
    start = len(body)
    body += second[: second.index(b"PK\x01\x02")]
    entry = bytearray(second[second.index(b"PK\x01\x02") : second.index(b"PK\x05\x06")])
    entry[42:46] = struct.pack("<L", start)
    directory = first[first.index(b"PK\x01\x02") : first.index(b"PK\x05\x06")] + bytes(entry)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, len(directory), len(body), 0)
    assert refusal(body + directory + end, tmp_path) == ReasonCode.HOSTILE_ARCHIVE


def test_two_names_for_one_member_are_refused(tmp_path: Path) -> None:
    data = zipped({"good.json": b"x"}).replace(b"good.json", b"evil.json", 1)
    assert refusal(data, tmp_path) == ReasonCode.HOSTILE_ARCHIVE


PAX_RECORDS = [
    b"25 GNU.sparse.major=1\n" + b"", b"20 linkpath=/etc/x\n\n", b"13 size=-1\n\n", b"9 path=a\n9 path=b\n",
    b"99 path=a\n", b"path=a\n", b"8 path=\n", b"13 path=a\x00bc\n",
]  # fmt: skip


@pytest.mark.parametrize("records", PAX_RECORDS, ids=range(len(PAX_RECORDS)))
def test_odd_pax_headers_are_refused(records: bytes, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("header")
        entry.type, entry.size = tarfile.XHDTYPE, len(records)
        archive.addfile(entry, io.BytesIO(records))
        archive.addfile(tarfile.TarInfo("x"))
    code = refusal(buffer.getvalue(), tmp_path)
    assert code in (ReasonCode.HOSTILE_ARCHIVE, ReasonCode.BROKEN_ARCHIVE)


@pytest.mark.parametrize("way", ["zip", "ustar", "tar.gz"])
def test_cut_archives_are_refused_at_every_byte(way: str, tmp_path: Path) -> None:
    data = PACKED[way]({"m/a": b"hello", "m/b": bytes(700)})
    last = len(data.rstrip(b"\0")) if way == "ustar" else len(data)
    for cut in range(30, last, 7):
        folder = tmp_path / str(cut)
        assert refusal(data[:cut], folder) in (ReasonCode.BROKEN_ARCHIVE, ReasonCode.HOSTILE_ARCHIVE)


def test_progress_counts_bytes_and_may_end_the_work(tmp_path: Path) -> None:
    file = received(zipped(PLAIN), tmp_path)
    told: list[int] = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    unpack(file, tmp_path / "one", told.append)
    assert sum(told) == sum(map(len, PLAIN.values()))

    def stop(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(file, tmp_path / "two", stop)


# the gate


def judged(data: bytes, folder: Path, name: str) -> tuple[ReasonCode, str | None]:
    upload, scratch = folder / "upload", folder / "scratch"
    upload.mkdir()
    scratch.mkdir()
    (upload / name).write_bytes(data)
    verdict = gate.judge(upload, scratch)
    return verdict.code, getattr(verdict, "file", None)


def test_members_are_named_in_verdicts(tmp_path: Path) -> None:
    inner = zipped({"dir/evil.py": b"import os"})
    code, file = judged(tarred({"deep/inner.zip": inner}, mode="w:gz"), tmp_path, "a.tgz")
    assert (code, file) == (ReasonCode.SOURCE_CODE, "a.tgz!/deep/inner.zip!/dir/evil.py")


def test_third_nesting_is_refused(tmp_path: Path) -> None:
    data = zipped({"x.py": b"x"})
    for name in ("one.zip", "two.zip"):
        data = zipped({name: data})
    assert judged(data, tmp_path, "a.zip")[0] == ReasonCode.NESTED_ARCHIVE


def test_empty_archive_is_an_empty_upload(tmp_path: Path) -> None:
    assert judged(zipped({}), tmp_path, "a.zip")[0] == ReasonCode.EMPTY_UPLOAD


def test_tar_of_torch_0_1_is_refused_as_pickles(tmp_path: Path) -> None:
    old = tarred({"sys_info": b"x", "pickle": b"x", "storages": b"x", "tensors": b"x"})
    assert judged(old, tmp_path, "model.pt")[0] == ReasonCode.RAW_PICKLE


def test_compressed_pickle_is_refused_as_a_pickle(tmp_path: Path) -> None:
    assert judged(zlib.compress(b"\x80\x04N."), tmp_path, "m.joblib") == (
        ReasonCode.RAW_PICKLE, "m.joblib!/m.joblib",
    )  # fmt: skip


# arithmetic of names

PARTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@given(st.lists(PARTS, min_size=1, max_size=4).map("/".join))
def test_plain_names_never_lead_elsewhere(name: str) -> None:
    try:
        found = plain(name, "a")
    except Refusal:
        return
    assert not found.startswith("/")
    assert not {"..", "."} & set(found.split("/"))
    assert "\\" not in found
    assert found == "" or found.isprintable()


@given(st.lists(st.sampled_from(["a", "A", "a/b", "a/B", "b", "b/c/d", "b/c"]), max_size=6))
def test_no_two_files_share_a_place(names: list[str]) -> None:
    seen = Names("a")
    taken: set[str] = set()
    for name in names:
        low = name.lower()
        clash = any(low == each or low.startswith(each + "/") or each.startswith(low + "/") for each in taken)
        if clash:
            with pytest.raises(Refusal):
                seen.add(name, is_folder=False)
            return
        seen.add(name, is_folder=False)
        taken.add(low)


FILES = st.dictionaries(
    st.from_regex(r"[a-z]{1,8}(/[a-z0-9._-]{2,20}x){0,3}", fullmatch=True),
    st.binary(max_size=2000),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(contents=FILES, way=st.sampled_from(sorted(PACKED)))
def test_any_plain_contents_come_back(
    contents: Contents, way: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folders = {name[:at] for name in contents for at, char in enumerate(name) if char == "/"}
    kept = {name: content for name, content in contents.items() if name not in folders}
    assert opened(PACKED[way](kept), tmp_path_factory.mktemp("any")) == kept


@settings(max_examples=150, deadline=None)
@given(data=st.data(), way=st.sampled_from(sorted(PACKED)))
def test_spoilt_archives_are_refused_or_read(
    data: st.DataObject, way: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    packed = bytearray(PACKED[way](PLAIN))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("spoilt")
    file = received(bytes(packed), folder)
    (folder / "out").mkdir()
    with suppress(Refusal):  # any other error fails the test
        unpack(file, folder / "out")
