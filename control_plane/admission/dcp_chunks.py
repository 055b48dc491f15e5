"""Chunks of a distributed checkpoint as pieces: each is a zip of torch.save inside a `.distcp` file.

Only the zip's directory and its `data.pkl` (a few hundred bytes, followed symbolically) are read;
the tensor's bytes stay where they are. Zip layout: PKWARE APPNOTE 6.3.10, members stored uncompressed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Final

from control_plane.admission import pickled_tensors
from control_plane.admission.base import ReceivedFile, Refusal
from control_plane.admission.dcp_metadata import Chunk, DcpTensor, broken
from control_plane.admission.pickle_symbols import Machine, NotAPickleError
from control_plane.admission.pickled_tensors import MalformedError, NotPlain, View
from control_plane.admission.tensors import Piece, SourceTensor, Storage

MAX_OPEN_FILES: Final = 256
MAX_PICKLE_BYTES: Final = 64 * 1024
MAX_DIRECTORY_BYTES: Final = 64 * 1024
END: Final = struct.Struct("<4s4H2LH")
ZIP64_END: Final = struct.Struct("<4sQ2H2L4Q")
ZIP64_LOCATOR_BYTES: Final = 20
ENTRY: Final = struct.Struct("<4s6H3L5H2L")
LOCAL: Final = struct.Struct("<4s5H3L2H")


class _DamagedError(ValueError):
    """An item is not what torch.save writes for one plain tensor."""


@dataclass(frozen=True, slots=True)
class _Member:
    """A stored member: where its bytes begin in the file, how many there are, and their checksum."""

    offset: int
    size_bytes: int
    crc32: int


def tensors(
    wanted: tuple[DcpTensor, ...], files: Mapping[str, ReceivedFile], metadata_path: str
) -> Iterator[SourceTensor]:
    """Yield *wanted* under their keys, with pieces in *files* (the `.distcp` files by name).

    Raises Refusal where a file is missing or cut, or an item is no plain tensor of the chunk's type and size.
    Does not check that the chunks tile the tensor: that is the writer's `coverage`.
    """
    with ExitStack() as stack:
        opened: dict[str, IO[bytes]] = {}
        for tensor in wanted:
            pieces = []
            for chunk in tensor.chunks:
                file = _file(chunk, tensor.key, files, metadata_path)
                if chunk.file not in opened and len(opened) < MAX_OPEN_FILES:
                    opened[chunk.file] = stack.enter_context(file.location.open("rb"))
                pieces.append(_piece(tensor, chunk, file, opened.get(chunk.file)))
            yield SourceTensor(tensor.key, tensor.dtype, tensor.shape, tuple(pieces))


def _file(chunk: Chunk, key: str, files: Mapping[str, ReceivedFile], metadata_path: str) -> ReceivedFile:
    file = files.get(chunk.file)
    if file is None:
        raise broken(metadata_path, f"{chunk.file}, which holds a part of {key[:120]}, is missing", key[:120])
    if chunk.offset + chunk.length > file.size_bytes:
        raise broken(file.path, f"it is cut: {key[:120]} lies beyond its end", key[:120])
    return file


def _piece(tensor: DcpTensor, chunk: Chunk, file: ReceivedFile, opened: IO[bytes] | None) -> Piece:
    try:
        if opened is not None:
            return _located(tensor, chunk, file, opened)
        with file.location.open("rb") as stream:
            return _located(tensor, chunk, file, stream)
    except (_DamagedError, MalformedError, NotAPickleError, struct.error, UnicodeDecodeError) as error:
        raise _no_tensor(file, tensor.key, str(error)) from None


def _no_tensor(file: ReceivedFile, key: str, why: str) -> Refusal:
    return broken(file.path, f"the item of {key[:120]} is no plain tensor: {why[:200]}", key[:120])


def _located(tensor: DcpTensor, chunk: Chunk, file: ReceivedFile, stream: IO[bytes]) -> Piece:
    members = _directory(stream, chunk)
    description = _read(stream, _member(members, "data.pkl"), MAX_PICKLE_BYTES)
    if "byteorder" in members and _read(stream, members["byteorder"], 16) != b"little":
        raise _DamagedError("its numbers are not little-endian")
    view = _view(description)
    data = _member(members, f"data/{view.storage.key}")
    _check(view, data, tensor, chunk)
    storage = Storage(file.location, data.offset, data.size_bytes, data.crc32 or None)
    strides = _aligned(view, chunk.sizes)
    return Piece(storage, view.start, chunk.sizes, strides, chunk.offsets)


def _check(view: View, data: _Member, tensor: DcpTensor, chunk: Chunk) -> None:
    if view.dtype != tensor.dtype:
        raise _DamagedError(f"it holds {view.dtype}, not {tensor.dtype}")
    if _without_ones(view.shape) != _without_ones(chunk.sizes):
        raise _DamagedError(f"its shape is {list(view.shape)}, not {list(chunk.sizes)}")
    if data.size_bytes != view.storage.size_bytes or view.storage.first:
        raise _DamagedError("its storage has another size than its description says")


def _without_ones(sizes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in sizes if size != 1)


def _aligned(view: View, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Return strides for *sizes*, which may hold more dimensions of size 1 than the view (Megatron's)."""
    strides = iter([stride for size, stride in zip(view.shape, view.strides, strict=True) if size != 1])
    return tuple(next(strides) if size != 1 else 1 for size in sizes)


# the pickle of one tensor


def _view(description: bytes) -> View:
    found = pickled_tensors.tensor(Machine(description).run())
    if isinstance(found, View):
        return found
    raise _DamagedError(
        f"it is a {found.why}" if isinstance(found, NotPlain) else "its pickle holds something else"
    )


# the zip of one item


def _member(members: Mapping[str, _Member], name: str) -> _Member:
    if name not in members:
        raise _DamagedError(f"it lacks {name[:40]}")
    return members[name]


def _read(stream: IO[bytes], member: _Member, limit: int) -> bytes:
    if member.size_bytes > limit:
        raise _DamagedError(f"a description of {member.size_bytes} bytes is not read")
    stream.seek(member.offset)
    return stream.read(member.size_bytes)


def _directory(stream: IO[bytes], chunk: Chunk) -> dict[str, _Member]:
    """Return the item's members by name, without the one top folder."""
    tail_bytes = min(chunk.length, ZIP64_END.size + ZIP64_LOCATOR_BYTES + END.size)
    stream.seek(chunk.offset + chunk.length - tail_bytes)
    tail = stream.read(tail_bytes)
    if len(tail) < END.size or tail[-END.size :][:4] != b"PK\x05\x06":
        raise _DamagedError("it is no file of torch.save")
    _, _, _, _, count, size, start, _ = END.unpack(tail[-END.size :])
    if count == 0xFFFF or 0xFFFFFFFF in (size, start):
        count, size, start = ZIP64_END.unpack(tail[: ZIP64_END.size])[7:10]
    if size > MAX_DIRECTORY_BYTES or start + size > chunk.length:
        raise _DamagedError("its directory does not fit")
    stream.seek(chunk.offset + start)
    raw = stream.read(size)
    members: dict[str, _Member] = {}
    for name, member in _entries(stream, raw, count, chunk):
        if name in members:
            raise _DamagedError("its directory holds a name twice")
        members[name] = member
    return members


def _entries(stream: IO[bytes], raw: bytes, count: int, chunk: Chunk) -> Iterator[tuple[str, _Member]]:
    position = 0
    for _ in range(count):
        fields = ENTRY.unpack_from(raw, position)
        magic, _, _, flags, method, _, _, crc32, packed, size, name_size, extra_size, comment_size = fields[
            :13
        ]
        if magic != b"PK\x01\x02" or method != 0 or flags & 0x2061:
            raise _DamagedError("a member is compressed or encrypted")
        name = raw[position + ENTRY.size : position + ENTRY.size + name_size].decode()
        extra_at = position + ENTRY.size + name_size
        extra = raw[extra_at : extra_at + extra_size]
        size, packed, local = _wide(extra, size, packed, fields[16])
        position = extra_at + extra_size + comment_size
        if size != packed:
            raise _DamagedError("a member has two sizes")
        yield name.partition("/")[2], _Member(_content(stream, chunk, local, size), size, crc32)


def _wide(extra: bytes, *values: int) -> tuple[int, ...]:
    """Return *values*, each taken from the zip64 field where it says 0xFFFFFFFF."""
    wide = iter(_zip64(extra))
    return tuple(next(wide, -1) if value == 0xFFFFFFFF else value for value in values)


def _zip64(extra: bytes) -> tuple[int, ...]:
    position = 0
    while position + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, position)
        if kind == 1:
            body = extra[position + 4 : position + 4 + size]
            return tuple(value for (value,) in struct.iter_unpack("<Q", body[: len(body) // 8 * 8]))
        position += 4 + size
    return ()


def _content(stream: IO[bytes], chunk: Chunk, local: int, size: int) -> int:
    """Return where in the file a member's bytes begin, from its local header at *local* in the item."""
    if local < 0 or size < 0 or local + LOCAL.size > chunk.length:
        raise _DamagedError("a member lies outside of it")
    stream.seek(chunk.offset + local)
    magic, *_, name_size, extra_size = LOCAL.unpack(stream.read(LOCAL.size))
    begin = local + LOCAL.size + int(name_size) + int(extra_size)
    if magic != b"PK\x03\x04" or begin + size > chunk.length:
        raise _DamagedError("a member lies outside of it")
    return chunk.offset + begin
