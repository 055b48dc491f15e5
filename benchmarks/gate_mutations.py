"""Mutants of uploads: bytes changed anywhere, and structures so that checksums and lengths still fit."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, Final

Upload = dict[str, bytes]
"""Content by path."""
INTERESTING: Final = (
    b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\xff" * 8, b"\0" * 8, b"\x7f\xff\xff\xff",
    b"../", b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"ustar", b"\x80\x02", b".", b"(", b"R", b"\x93",
    b"\n", b"}", b"u", b"Q", b"e", b"t", b"b", b"\x81", b"h\0", b"q\0", b"\x94", b"cos\nsystem\n",
    b"X\x01\0\0\0a", b"\x8a\x08" + b"\xff" * 8, b"\x8b\xff\xff\xff\x7f", b"[" * 200, b"-1", b"1e999", b"NaN",
    b"18446744073709551616",
)  # fmt: skip
UNREADABLE: Final = (
    ValueError, LookupError, OSError, EOFError, RuntimeError, struct.error, zlib.error, tarfile.TarError,
    zipfile.BadZipFile,
)  # fmt: skip
"""What the standard library raises for seeds that are broken already."""
MAX_BYTES: Final = 256 * 1024


def mutant(upload: Upload, others: list[Upload], chance: random.Random) -> Upload:
    """Return a changed copy of *upload*; *others* lend it pieces."""
    path = chance.choice(sorted(upload))
    other = chance.choice(others)
    lent = other[chance.choice(sorted(other))]
    changed = _changed(upload[path], lent, chance, depth=0)
    result = {**upload, path: changed[:MAX_BYTES] or b"x"}
    if chance.random() < 0.02:
        result[chance.choice(("config.json", ".metadata", "evil.py", "a/b", "m.onnx", "x.safetensors"))] = (
            lent
        )
    return result


def _changed(data: bytes, lent: bytes, chance: random.Random, depth: int) -> bytes:
    """Change a structure that is known, else bytes."""
    if depth < 3 and chance.random() < 0.7:
        for known, change in STRUCTURES:
            if known(data):
                try:
                    return change(data, lent, chance, depth)
                except UNREADABLE:
                    break
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        data = chance.choice(BYTE_CHANGES)(data, lent, chance)
    return data


def _place(data: bytes, chance: random.Random) -> int:
    """A place in *data*; often near its ends, where headers and directories lie."""
    where = chance.random()
    if where < 0.25:
        return chance.randrange(min(len(data), 128) + 1)
    if where < 0.4:
        return max(0, len(data) - chance.randrange(1, 128))
    return chance.randrange(len(data) + 1)


def _flip(data: bytes, _lent: bytes, chance: random.Random) -> bytes:
    at = min(_place(data, chance), max(0, len(data) - 1))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :] if data else b"x"


def _overwrite(data: bytes, _lent: bytes, chance: random.Random) -> bytes:
    at, new = _place(data, chance), chance.choice(INTERESTING)
    return data[:at] + new + data[at + len(new) :]


def _insert(data: bytes, _lent: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + chance.choice(INTERESTING) * chance.choice((1, 1, 3)) + data[at:]


def _remove(data: bytes, _lent: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + data[at + chance.choice((1, 1, 2, 8, 64)) :]


def _repeat(data: bytes, _lent: bytes, chance: random.Random) -> bytes:
    at, size = _place(data, chance), chance.choice((1, 4, 30, 200))
    return data[:at] + data[at : at + size] * chance.choice((2, 3, 50)) + data[at + size :]


def _cut(data: bytes, _lent: bytes, chance: random.Random) -> bytes:
    return data[: _place(data, chance)]


def _borrow(data: bytes, lent: bytes, chance: random.Random) -> bytes:
    at, start, size = _place(data, chance), _place(lent, chance), chance.choice((2, 16, 128, 1024))
    return data[:at] + lent[start : start + size] + data[at + chance.choice((0, size)) :]


BYTE_CHANGES: Final = (_flip, _flip, _overwrite, _overwrite, _insert, _remove, _repeat, _cut, _borrow)


def _zip(data: bytes, lent: bytes, chance: random.Random, depth: int) -> bytes:
    """Pack the members anew, one of them changed, dropped, doubled or renamed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    members = _members(members, lent, chance, depth)
    buffer = io.BytesIO()
    method = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for name, content in members:
                archive.writestr(name, content)
    return buffer.getvalue()


def _members(
    members: list[tuple[str, bytes]], lent: bytes, chance: random.Random, depth: int
) -> list[tuple[str, bytes]]:
    at = chance.randrange(len(members))
    pickles = [
        index for index, (name, _) in enumerate(members) if name.endswith((".pkl", ".json", ".metadata"))
    ]
    if pickles and chance.random() < 0.6:
        at = chance.choice(pickles)
    name, content = members[at]
    what = chance.random()
    if what < 0.7:
        members[at] = (name, _changed(content, lent, chance, depth + 1))
    elif what < 0.8:
        del members[at]
    elif what < 0.9:
        members.insert(chance.randrange(len(members) + 1), (name, content))
    else:
        renamed = _changed(name.encode(), lent, chance, 9).decode("utf-8", "replace")[:300]
        members[at] = (renamed.replace("\0", "") or "x", content)
    return members


def _tar(data: bytes, lent: bytes, chance: random.Random, _depth: int) -> bytes:
    """Change a header block and make its checksum fit."""
    if len(data) % 512:
        raise ValueError("not whole blocks")
    starts = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    at = chance.choice(starts)
    block = bytearray(_changed(data[at : at + 512], lent, chance, 9).ljust(512, b"\0")[:512])
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return data[:at] + bytes(block) + data[at + 512 :]


def _gzip(data: bytes, lent: bytes, chance: random.Random, depth: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        inner = stream.read(4 * MAX_BYTES)
    return gzip.compress(_changed(inner, lent, chance, depth + 1), 1)


def _safetensors(data: bytes, lent: bytes, chance: random.Random, depth: int) -> bytes:
    """Change the header and make its length fit."""
    size = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + size], data[8 + size :]
    changed = (
        _json(header, lent, chance, depth) if chance.random() < 0.6 else _changed(header, lent, chance, 9)
    )
    return struct.pack("<Q", len(changed)) + changed + rest


def _json(data: bytes, _lent: bytes, chance: random.Random, _depth: int) -> bytes:
    """Change one value somewhere in the document."""
    value = json.loads(data)
    _change_value(value, chance)
    return json.dumps(value).encode()


VALUES: Final[tuple[Any, ...]] = (
    None, -1, 0, 1, 2**31, 2**63, 2**64, 1.5, "", "x", "../../etc/passwd", "a/b", [], {}, [1] * 100, [[[[]]]],
    True, "auto_map", "\ud800", "F32", "I64",
)  # fmt: skip


def _change_value(value: Any, chance: random.Random) -> None:
    while isinstance(value, dict | list) and value:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = chance.choice(keys)
        if not isinstance(value[key], dict | list) or not value[key] or chance.random() < 0.2:
            value[key] = chance.choice(VALUES)
            return
        value = value[key]


def _is_safetensors(data: bytes) -> bool:
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") < len(data)


Change = Callable[[bytes, bytes, random.Random, int], bytes]
STRUCTURES: Final[tuple[tuple[Callable[[bytes], bool], Change], ...]] = (
    (lambda data: data.startswith(b"PK\x03\x04"), _zip),
    (lambda data: data.startswith(b"\x1f\x8b"), _gzip),
    (lambda data: data[257:262] == b"ustar", _tar),
    (_is_safetensors, _safetensors),
    (lambda data: data[:1] in (b"{", b"["), _json),
)
