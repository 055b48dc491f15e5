"""The members of a tar archive as people pack models, read strictly from a stream of bytes.

Layout: POSIX.1-1988 ustar, pax headers of POSIX.1-2001 and GNU's long names
(https://www.gnu.org/software/tar/manual/html_node/Standard.html). Plain files and folders only: links,
devices, pipes and sparse files are refused, and so is everything that two readers could take differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from control_plane.admission.member_names import broken, hostile
from control_plane.admission.members import Member

BLOCK: Final = 512
MAGICS: Final = (b"ustar\x0000", b"ustar  \x00")
"""POSIX, and GNU's older spelling."""
MAX_HEADER_BYTES: Final = 64 * 1024
"""Largest pax header or long name."""
CHUNK_BYTES: Final = 1024 * 1024
FILES: Final = b"0\0"
FOLDER: Final = b"5"
PAX: Final = b"x"
GLOBAL_PAX: Final = b"g"
LONG_NAME: Final = b"L"
KINDS: Final = {
    b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file",
    b"K": "a link",
}  # fmt: skip
IDLE_KEYS: Final = frozenset(
    {"comment", "mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "charset", "hdrcharset"}
)
"""pax keys that say nothing of name, size or content."""
IDLE_PREFIXES: Final = (
    "SCHILY.xattr.", "SCHILY.acl.", "SCHILY.fflags", "SCHILY.dev", "SCHILY.ino", "SCHILY.nlink",
    "LIBARCHIVE.", "RHT.security.",
)  # fmt: skip

Read = Callable[[int], bytes]
"""Returns so many bytes of the archive, fewer only at its end."""


@dataclass(frozen=True, slots=True)
class Header:
    """One block that begins a member or something about the next one."""

    name: str
    size_bytes: int
    kind: bytes


def is_tar(head: bytes) -> bool:
    """Tell whether a file that begins with *head* (512 bytes) means to be a tar archive."""
    return head[257:265] in MAGICS


def members(read: Read, archive: str) -> Iterator[Member]:
    """Yield the members of the archive that *read* gives; *archive* names it in refusals. Raises Refusal.

    A member's content that was not read is read over before the next one.
    """
    while (header := _next_header(read, archive)) is not None:
        content = _Content(read, header.size_bytes, archive, header.name)
        yield Member(header.name, header.kind == FOLDER, header.size_bytes, content.chunks())
        content.finish()
    _check_rest(read, archive)


class _Content:
    """The bytes of one member, with the zeros that fill its last block."""

    def __init__(self, read: Read, size_bytes: int, archive: str, name: str) -> None:
        self._read = read
        self._left = size_bytes
        self._padding = -size_bytes % BLOCK
        self._archive = archive
        self._name = name

    def chunks(self) -> Iterator[bytes]:
        while self._left:
            chunk = self._read(min(CHUNK_BYTES, self._left))
            if not chunk:
                raise broken(self._archive, "it ends in the middle of a member", self._name[:200])
            self._left -= len(chunk)
            yield chunk

    def finish(self) -> None:
        for _ in self.chunks():
            pass
        if len(self._read(self._padding)) < self._padding:
            raise broken(self._archive, "it ends in the middle of a member", self._name[:200])


def _next_header(read: Read, archive: str) -> Header | None:
    """Return the next member's header with all that pax and GNU records say of it; None at the end."""
    said: dict[str, str] = {}
    while True:
        block = read(BLOCK)
        if not any(block):
            if len(block) < BLOCK or said:
                raise broken(archive, "its end is missing")
            return None
        header = _parsed(block, archive)
        if header.kind in (PAX, GLOBAL_PAX, LONG_NAME):
            _add(said, header, _payload(read, header, archive), archive)
            continue
        return _completed(header, said, archive)


def _add(said: dict[str, str], header: Header, payload: bytes, archive: str) -> None:
    """Note what a record about the next member says."""
    if header.kind == LONG_NAME:
        new = {"path": _text(payload.removesuffix(b"\0"), archive)}
    else:
        new = _pax(payload, archive)
    if said.keys() & new.keys() or (header.kind == GLOBAL_PAX and new):
        raise hostile(archive, "its headers contradict each other")
    said.update(new)


def _parsed(block: bytes, archive: str) -> Header:
    if len(block) < BLOCK:
        raise broken(archive, "it ends in the middle of a header")
    if block[257:265] not in MAGICS or _number(block[148:156], archive) != _checksum(block):
        raise broken(archive, "a member's header is damaged")
    kind = block[156:157]
    if kind in KINDS or kind not in (b"0", b"\0", FOLDER, PAX, GLOBAL_PAX, LONG_NAME):
        what = KINDS.get(kind, f"of the unknown kind {kind!a}")
        name = _text(_cut(block[:100]), archive)
        raise hostile(archive, f"its member {name[:80]!a} is {what}", name[:200])
    size = _number(block[124:136], archive)
    if kind == FOLDER and size:
        raise hostile(archive, "a folder in it has content")
    return Header(_name(block, archive), size, kind)


def _name(block: bytes, archive: str) -> str:
    """Return name and, in POSIX headers, the prefix in front of it."""
    prefix = _cut(block[345:500]) if block[257:265] == MAGICS[0] else b""
    name = _cut(block[:100])
    return _text(prefix + b"/" + name if prefix else name, archive)


def _cut(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _checksum(block: bytes) -> int:
    """Sum of the header's bytes, its own field counted as spaces."""
    return sum(block[:148]) + 8 * 0x20 + sum(block[156:])


def _number(field: bytes, archive: str) -> int:
    """Return an octal field, or GNU's binary one for large files."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise broken(archive, "a number in a header is malformed")
    return int(digits, 8)


def _payload(read: Read, header: Header, archive: str) -> bytes:
    if not 0 < header.size_bytes <= MAX_HEADER_BYTES:
        raise hostile(archive, f"a header in it has {header.size_bytes} bytes")
    content = _Content(read, header.size_bytes, archive, header.name)
    payload = b"".join(content.chunks())
    content.finish()
    return payload


def _pax(payload: bytes, archive: str) -> dict[str, str]:
    """Return `path` and `size` of a pax header. Raises Refusal for keys that change more than that."""
    found: dict[str, str] = {}
    for key, value in _records(payload, archive):
        if key in ("path", "size"):
            if key in found:
                raise hostile(archive, f"a header in it says {key} twice")
            found[key] = _text(value, archive)
        elif key not in IDLE_KEYS and not key.startswith(IDLE_PREFIXES):
            raise hostile(archive, f"a header in it says {key[:80]!a}, which changes what a member is")
    return found


def _records(payload: bytes, archive: str) -> Iterator[tuple[str, bytes]]:
    """Yield key and value of each `LENGTH KEY=VALUE\\n`."""
    position = 0
    while position < len(payload):
        digits, space, _ = payload[position : position + 8].partition(b" ")
        end = position + int(digits) if digits.isdigit() and space else 0
        key, equals, value = payload[position + len(digits) + 1 : end].partition(b"=")
        if not position < end <= len(payload) or not equals or not value.endswith(b"\n"):
            raise broken(archive, "a pax header is malformed")
        yield _text(key, archive), value[:-1]
        position = end


def _text(raw: bytes, archive: str) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise hostile(archive, f"the name {raw[:80]!a} is not UTF-8") from None
    if "\0" in text:
        raise hostile(archive, f"the name {text[:80]!a} holds a zero byte")
    return text


def _completed(header: Header, said: Mapping[str, str], archive: str) -> Header:
    size = header.size_bytes
    if "size" in said:
        if not (said["size"].isascii() and said["size"].isdigit() and len(said["size"]) < 20):
            raise hostile(archive, "a header in it says a size that is no number")
        size = int(said["size"])
    if header.kind == FOLDER and size:
        raise hostile(archive, "a folder in it has content")
    return Header(said.get("path", header.name), size, header.kind)


def _check_rest(read: Read, archive: str) -> None:
    """Check that nothing but zeros follows the first of the two empty blocks that end an archive."""
    rest = read(BLOCK)
    if len(rest) < BLOCK:
        raise broken(archive, "its end is missing")
    while rest:
        if any(rest):
            raise hostile(archive, "other data follows its end")
        rest = read(CHUNK_BYTES)
