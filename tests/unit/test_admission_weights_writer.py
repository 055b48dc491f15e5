"""Tiling, strided copies and the safetensors writer, against brute force and against safetensors itself."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import json
import math
import zlib
from pathlib import Path
from typing import Any

import pytest
import safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.admission import coverage, safetensors_header, safetensors_writer, strided_copy
from control_plane.admission.base import ReceivedFile, Refusal
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.tensors import ITEM_BYTES, Piece, SourceTensor, Storage, row_major, whole

SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
DTYPES = st.sampled_from(sorted(safetensors_header.BITS))


def source_file(folder: Path, size: int, seed: int = 0) -> Path:
    path = folder / f"source-{size}-{seed}"
    if not path.exists():
        path.write_bytes(bytes((index * 7 + index // 251 + seed) % 256 for index in range(size)))
    return path


def read_back(path: Path) -> dict[str, dict[str, Any]]:
    """Tensors by name as safetensors itself reads them: dtype, shape, data."""
    return dict(safetensors.deserialize(path.read_bytes()))


def elements(tensor: SourceTensor) -> bytes:
    """The tensor's bytes, element by element."""
    item = ITEM_BYTES[tensor.dtype]
    result = bytearray(tensor.size_bytes)
    strides = row_major(tensor.shape)
    for piece in tensor.pieces:
        data = piece.storage.location.read_bytes()[piece.storage.offset :]
        for place in itertools.product(*map(range, piece.shape)):
            start = piece.start + sum(i * s for i, s in zip(place, piece.strides, strict=True))
            end = sum((a + i) * s for a, i, s in zip(piece.at, place, strides, strict=True))
            result[end * item : (end + 1) * item] = data[start * item : (start + 1) * item]
    return bytes(result)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sources")


@st.composite
def boxes(draw: st.DrawFn, shape: tuple[int, ...]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(low, size) of parts that tile *shape*: cut again and again."""
    parts = [((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 4))):
        low, size = parts.pop(draw(st.integers(0, len(parts) - 1)))
        axes = [axis for axis, length in enumerate(size) if length > 1]
        if not axes:
            parts.append((low, size))
            continue
        axis = draw(st.sampled_from(axes))
        cut = draw(st.integers(1, size[axis] - 1))
        first = (*size[:axis], cut, *size[axis + 1 :])
        rest = (*size[:axis], size[axis] - cut, *size[axis + 1 :])
        parts += [(low, first), ((*low[:axis], low[axis] + cut, *low[axis + 1 :]), rest)]
    return parts


@st.composite
def strided(draw: st.DrawFn, home: Path, name: str) -> SourceTensor:
    """A tensor of any type and shape, cut into pieces with any strides, each in a storage of its own."""
    dtype, shape = draw(DTYPES), draw(SHAPES)
    item = ITEM_BYTES[dtype]
    pieces = []
    for low, size in draw(boxes(shape)) if math.prod(shape) else [((0,) * len(shape), shape)]:
        strides = draw(st.one_of(
            st.permutations(range(len(size))).map(lambda order, size=size: _permuted(size, order)),
            st.tuples(*(st.integers(0, 6) for _ in size)),
        ))  # fmt: skip
        start = draw(st.integers(0, 3))
        last = start + sum(max(0, n - 1) * s for n, s in zip(size, strides, strict=True))
        offset = draw(st.integers(0, 5))
        path = source_file(home, 4096, draw(st.integers(0, 3)))
        length = min((last + 1) * item + draw(st.integers(0, 9)), 4096 - offset)
        data = path.read_bytes()[offset : offset + length]
        checksum = draw(st.sampled_from([None, zlib.crc32(data)]))
        pieces.append(Piece(Storage(path, offset, length, checksum), start, size, strides, low))
    return SourceTensor(name, dtype, shape, tuple(pieces))


def _permuted(size: tuple[int, ...], order: list[int]) -> tuple[int, ...]:
    inner = row_major(tuple(size[axis] for axis in order))
    return tuple(inner[order.index(axis)] for axis in range(len(size)))


# tiling


@given(data=st.data(), shape=st.lists(st.integers(1, 4), max_size=3).map(tuple))
def test_tiling_agrees_with_counting(data: st.DataObject, shape: tuple[int, ...]) -> None:
    parts = data.draw(boxes(shape))
    if data.draw(st.booleans()):  # spoil it
        low, size = data.draw(st.sampled_from(parts))
        change = data.draw(st.sampled_from(["drop", "twice", "move"]))
        if change != "twice":
            parts.remove((low, size))
        if change == "twice":
            parts.append((low, size))
        elif change == "move":
            place = tuple(
                data.draw(st.integers(0, whole_ - n)) for whole_, n in zip(shape, size, strict=True)
            )
            parts.append((place, size))
    counted: dict[tuple[int, ...], int] = {}
    for low, size in parts:
        for place in itertools.product(*map(range, size)):
            at = tuple(a + i for a, i in zip(low, place, strict=True))
            counted[at] = counted.get(at, 0) + 1
    exact = all(counted.get(place) == 1 for place in itertools.product(*map(range, shape)))
    storage = Storage(Path("x"), 0, 1 << 20)
    pieces = tuple(Piece(storage, 0, size, (0,) * len(size), low) for low, size in parts)
    assert coverage.tiles(SourceTensor("t", "F32", shape, pieces)) == exact


@pytest.mark.parametrize(
    "piece",
    [
        Piece(Storage(Path("x"), 0, 16), 0, (5,), (1,), (0,)),  # beyond its storage
        Piece(Storage(Path("x"), 0, 16), 1, (4,), (1,), (0,)),
        Piece(Storage(Path("x"), 0, 16), 0, (4,), (2,), (0,)),
        Piece(Storage(Path("x"), 0, 16), 0, (4,), (-1,), (0,)),
        Piece(Storage(Path("x"), 0, 16), -1, (4,), (1,), (0,)),
        Piece(Storage(Path("x"), 0, 16), 0, (4,), (1,), (1,)),  # beyond its tensor
        Piece(Storage(Path("x"), 0, 16), 0, (4,), (1, 1), (0,)),
        Piece(Storage(Path("x"), 0, 16), 0, (4,), (1 << 62,), (0,)),
    ],
)
def test_pieces_outside_are_refused(piece: Piece) -> None:
    shape = (max(piece.shape[0], 4),)
    with pytest.raises(Refusal) as refused:
        coverage.check([SourceTensor("t", "F32", shape, (piece,))], "model.pt")
    assert refused.value.refused.code == ReasonCode.BROKEN_WEIGHTS


def test_a_petabyte_without_data_is_refused() -> None:
    with pytest.raises(Refusal):
        coverage.check([SourceTensor("t", "F32", (1 << 48,), ())], "model.pt")


def test_growing_by_repetition_is_refused() -> None:
    storage = Storage(Path("x"), 0, 4)
    repeated = SourceTensor("t", "F32", (1 << 40,), (Piece(storage, 0, (1 << 40,), (0,), (0,)),))
    with pytest.raises(Refusal) as refused:
        coverage.check([repeated], "model.pt")
    assert refused.value.refused.code == ReasonCode.ARCHIVE_BOMB
    small = SourceTensor("t", "F32", (1000,), (Piece(storage, 0, (1000,), (0,), (0,)),))
    coverage.check([small], "model.pt")


def test_scattered_elements_are_refused() -> None:
    shape = (2,) * 22
    storage = Storage(Path("x"), 0, 1 << 20)
    scattered = tuple(0 if axis % 2 else 1 for axis in range(len(shape)))
    tensor = SourceTensor("t", "U8", shape, (Piece(storage, 0, shape, scattered, (0,) * len(shape)),))
    with pytest.raises(Refusal) as refused:
        coverage.check([tensor], "model.pt")
    assert "contiguous" in refused.value.refused.next_step
    turned = tuple(reversed(row_major(shape[:20])))
    piece = Piece(Storage(Path("x"), 0, 4 << 20), 0, shape[:20], turned, (0,) * 20)
    coverage.check([SourceTensor("t", "F32", shape[:20], (piece,))], "model.pt")


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 1025, "__metadata__", "a\0", "\ud800", "\u202ex"])
def test_names_that_cannot_be_shown_are_refused(name: str) -> None:
    tensor = whole(name, "F32", (1,), Storage(Path("x"), 0, 4))
    with pytest.raises(Refusal) as refused:
        coverage.check([tensor], "model.pt")
    assert refused.value.refused.message.isprintable()


def test_two_tensors_of_one_name_are_refused() -> None:
    tensor = whole("a", "F32", (1,), Storage(Path("x"), 0, 4))
    with pytest.raises(Refusal):
        coverage.check([tensor, tensor], "model.pt")


# copies


@settings(deadline=None)
@given(data=st.data())
def test_any_strides_are_copied(
    home: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, 3))
    tensors = [data.draw(strided(home, f"t{index}")) for index in range(count)]
    target = tmp_path_factory.mktemp("out") / "model.safetensors"
    size = safetensors_writer.write(tensors, target)
    assert size == target.stat().st_size
    found = read_back(target)
    assert found.keys() == {tensor.name for tensor in tensors}
    for tensor in tensors:
        assert tuple(found[tensor.name]["shape"]) == tensor.shape
        assert bytes(found[tensor.name]["data"]) == elements(tensor)


@pytest.mark.parametrize("block", [1, 3, 16, 64])
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_blocks_of_any_size_make_the_same_file(
    home: Path, tmp_path_factory: pytest.TempPathFactory, block: int, data: st.DataObject
) -> None:
    tensor = data.draw(strided(home, "t"))
    folder = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safetensors_writer, "BLOCK_BYTES", block * 16)
        patch.setattr(safetensors_writer, "RUN_BYTES", block * 16)
        patch.setattr(strided_copy, "SHORT_RUN", 2)
        safetensors_writer.write([tensor], folder / "small")
    safetensors_writer.write([tensor], folder / "large")
    assert (folder / "small").read_bytes() == (folder / "large").read_bytes()


@given(shape=SHAPES, limit=st.integers(1, 40))
def test_blocks_follow_one_another(shape: tuple[int, ...], limit: int) -> None:
    strides = row_major(shape)
    position = 0
    for low, size in safetensors_writer.blocks(shape, limit):
        assert sum(a * s for a, s in zip(low, strides, strict=True)) == position
        assert 0 < math.prod(size) <= limit
        position += math.prod(size)
    assert position == math.prod(shape)


# the file


@settings(deadline=None)
@given(
    tensors=st.dictionaries(
        st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=12).filter(
            lambda name: name.isprintable() and name != "__metadata__"
        ),
        st.tuples(DTYPES, SHAPES),
        min_size=1,
        max_size=6,
    )
)
def test_file_is_what_safetensors_writes(
    home: Path, tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, tuple[str, tuple[int, ...]]]
) -> None:
    path = source_file(home, 16_384)
    sources, plain = [], {}
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * ITEM_BYTES[dtype]
        sources.append(whole(name, dtype, shape, Storage(path, 3, size)))
        plain[name] = (LONG_NAMES[dtype], shape, path.read_bytes()[3 : 3 + size])
    target = tmp_path_factory.mktemp("out") / "model.safetensors"
    safetensors_writer.write(sources, target)
    assert target.read_bytes() == serialized(plain)
    received = ReceivedFile(target.name, target, target.stat().st_size)
    assert safetensors_header.tensor_names(received) == tensors.keys()
    assert {tensor.name: elements(tensor) for tensor in safetensors_header.tensors(received)} == {
        name: data for name, (_, _, data) in plain.items()
    }


def serialized(tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> bytes:
    """What safetensors writes for (type, shape, data) by name."""
    held = {
        name: ctypes.create_string_buffer(data, max(1, len(data))) for name, (_, _, data) in tensors.items()
    }
    specs = {
        name: safetensors.TensorSpec(
            dtype=dtype, shape=shape, data_ptr=ctypes.addressof(held[name]), data_len=len(data)
        )
        for name, (dtype, shape, data) in tensors.items()
    }
    return bytes(safetensors.serialize(specs, {"format": "pt"}))


LONG_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16", "U16": "uint16", "F16": "float16", "BF16": "bfloat16", "I32": "int32", "U32": "uint32",
    "F32": "float32", "I64": "int64", "U64": "uint64", "F64": "float64", "C64": "complex64",
}  # fmt: skip


def test_progress_and_observer_see_every_byte(home: Path, tmp_path: Path) -> None:
    tensors = [whole(name, "U8", (1000,), Storage(source_file(home, 4096), 0, 1000)) for name in "ab"]
    told: list[int] = []
    digest = hashlib.sha256()
    target = tmp_path / "m"
    size = safetensors_writer.write(tensors, target, progress=told.append, observe=digest.update)
    assert sum(told) == size
    assert digest.hexdigest() == hashlib.sha256(target.read_bytes()).hexdigest()


def test_an_error_of_the_observer_leaves_nothing(home: Path, tmp_path: Path) -> None:
    def cancelled(_count: int) -> None:
        raise InterruptedError

    tensor = whole("a", "U8", (10,), Storage(source_file(home, 4096), 0, 10))
    with pytest.raises(InterruptedError):
        safetensors_writer.write([tensor], tmp_path / "m", progress=cancelled)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_not_touched(home: Path, tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"mine")
    tensor = whole("a", "U8", (10,), Storage(source_file(home, 4096), 0, 10))
    with pytest.raises(FileExistsError):
        safetensors_writer.write([tensor], tmp_path / "m")
    assert (tmp_path / "m").read_bytes() == b"mine"


@pytest.mark.parametrize("strides", [(1,), (2,)])
def test_damage_in_a_part_that_is_not_even_used_is_noticed(
    home: Path, tmp_path: Path, strides: tuple[int]
) -> None:
    path = source_file(home, 4096)
    right = zlib.crc32(path.read_bytes()[8:108])
    for checksum, is_right in ((right, True), (right ^ 1, False)):
        piece = Piece(Storage(path, 8, 100, checksum), 0, (10,), strides, (0,))
        tensor = SourceTensor("a", "U8", (10,), (piece,))
        if is_right:
            safetensors_writer.write([tensor], tmp_path / "m")
            (tmp_path / "m").unlink()
            continue
        with pytest.raises(Refusal) as refused:
            safetensors_writer.write([tensor], tmp_path / "m", source="model.pt")
        assert refused.value.refused.code == ReasonCode.BROKEN_ARCHIVE
        assert "model.pt" in refused.value.refused.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("strides", [(1,), (2,)])
def test_a_file_that_became_shorter_is_refused(tmp_path: Path, strides: tuple[int]) -> None:
    (tmp_path / "short").write_bytes(b"12345")
    piece = Piece(Storage(tmp_path / "short", 0, 100), 0, (20,), strides, (0,))
    with pytest.raises(Refusal) as refused:
        safetensors_writer.write([SourceTensor("a", "U8", (20,), (piece,))], tmp_path / "m")
    assert refused.value.refused.code == ReasonCode.BROKEN_ARCHIVE
    assert not (tmp_path / "m").exists()


def test_types_beyond_safetensors_are_refused(home: Path, tmp_path: Path) -> None:
    tensor = whole("a", "C128", (2,), Storage(source_file(home, 4096), 0, 32))
    with pytest.raises(Refusal) as refused:
        safetensors_writer.write([tensor], tmp_path / "m")
    assert refused.value.refused.code == ReasonCode.UNSUPPORTED_TENSOR


def test_a_cast_changes_type_and_bytes(home: Path, tmp_path: Path) -> None:
    path = source_file(home, 4096)
    piece = Piece(Storage(path, 0, 64), 0, (2, 4), (1, 2), (0, 0))
    tensors = [SourceTensor("a", "F32", (2, 4), (piece,)), whole("b", "I64", (1,), Storage(path, 0, 8))]

    def halved(block: memoryview, dtype: str) -> bytes:
        assert dtype == "F32"
        return b"".join(bytes(block[index + 2 : index + 4]) for index in range(0, len(block), 4))

    safetensors_writer.write(tensors, tmp_path / "m", cast=safetensors_writer.Cast({"F32": "BF16"}, halved))
    found = read_back(tmp_path / "m")
    assert found["a"]["dtype"] == "BF16"
    assert bytes(found["a"]["data"]) == halved(memoryview(elements(tensors[0])), "F32")
    assert found["b"]["dtype"] == "I64"


def test_shards_keep_order_and_bound(home: Path, tmp_path: Path) -> None:
    path = source_file(home, 4096)
    tensors = [
        whole(f"t{i}", "F32", (size,), Storage(path, 0, 4 * size)) for i, size in enumerate((4, 4, 9, 1))
    ]
    files = safetensors_writer.shards(tensors, 32)
    assert [file.name for file in files] == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    assert [tensor.name for file in files for tensor in file.tensors] == ["t0", "t1", "t2", "t3"]
    assert [len(file.tensors) for file in files] == [2, 1, 1]
    names = safetensors_writer.write_all(files, tmp_path)
    assert sorted(names) == sorted(path.name for path in tmp_path.iterdir())
    index = json.loads((tmp_path / safetensors_writer.INDEX).read_text())
    assert index["metadata"]["total_size"] == 4 * 18
    for name, part in index["weight_map"].items():
        assert name in read_back(tmp_path / part)
    (only,) = safetensors_writer.shards(tensors, 1 << 30)
    assert only.name == "model.safetensors"
