"""Small files that would take long, much memory or a crash to judge: all answered within a second."""

from __future__ import annotations

import collections
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from control_plane.admission import bounded_json, coverage, dcp_metadata, safetensors_header
from control_plane.admission.base import ReceivedFile, Refusal
from control_plane.admission.pickle_symbols import Call, Global, Items, Persistent
from control_plane.admission.pickled_tensors import MalformedError, named, storage_key, tensor
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.state_dict_choice import choose

MANY = 500_000


@contextmanager
def within_a_second() -> Iterator[None]:
    begun = time.thread_time()
    yield
    assert time.thread_time() - begun < 1


def stored(items: int = 4, *more: Any) -> Persistent:
    return Persistent(("storage", Global("torch", "FloatStorage"), "0", "cpu", items, *more))


def made(storage: Any, shape: Any = (4,), strides: Any = (1,), metadata: Any = None) -> Call:
    arguments = (storage, 0, shape, strides, False, Call(Global("collections", "OrderedDict"), ()), metadata)
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), arguments)


def unfolding() -> Any:
    value: Any = (None, None)
    for _ in range(40):
        value = (value, value)
    return value


LONG = tuple([1] * MANY)
SHARED = {
    "shape": made(stored(), LONG, LONG),
    "flags": made(stored(), metadata=Items([("conj", False)] * MANY)),
    "storage": made(stored(4, *LONG)),
    "class": Call(Global("torch._utils", "_rebuild_wrapper_subclass"), (unfolding(),)),
    "long class": Call(
        Global("torch._utils", "_rebuild_wrapper_subclass"), (Global("torchao.x" * MANY, "A"),)
    ),
}


@pytest.mark.parametrize("case", SHARED)
def test_what_many_tensors_share_is_not_looked_through_for_each(case: str) -> None:
    with within_a_second():
        for _ in range(2000):
            try:
                tensor(SHARED[case])
            except MalformedError:
                continue


def test_pairs_that_many_dicts_share_are_not_collected_for_each() -> None:
    arguments = ([[1, 1]] * MANY,)
    shared = [(f"k{n}", Call(Global("collections", "OrderedDict"), arguments)) for n in range(2000)]
    with within_a_second():
        choice = choose(Items([("w", made(stored())), *shared]), 4 * MANY)
    assert list(choice.views) == ["w"]


def test_keys_that_unfold_are_called_by_their_type() -> None:
    with within_a_second():
        choice = choose(Items([("w", made(stored())), (unfolding(), 1)]), 1000)
    assert [name for name, _, _ in choice.left_out] == ["<tuple>"]
    assert named(Global("a" * 200, "b" * 200)) == "a" * 60 + "." + "b" * 59


def test_long_keys_are_not_multiplied() -> None:
    inner = Items([(f"w{n}", made(stored())) for n in range(500)])
    with within_a_second():
        choice = choose(Items([("a" + "b" * 2_000, Items(inner.pairs[:1])), ("c", inner)]), 100_000)
    assert max(map(len, choice.views)) == 1025


def test_sizes_past_counting_are_no_shape() -> None:
    assert coverage.is_shape((1 << 48, 0))
    for shape in ((1 << 70, 0), (1 << 48, 0, 2), (1 << 24, 1 << 25), (1,) * 65):
        assert not coverage.is_shape(shape)
    with pytest.raises(MalformedError):
        tensor(made(stored(), (1 << 8000,) * 2, (0, 0)))
    with pytest.raises(MalformedError):
        storage_key(stored(1 << 70))


def test_large_strides_of_a_usual_tensor_are_read() -> None:
    sizes = (100, 100, 100, 100, 100, 100)
    strides = tuple(100**n for n in reversed(range(6)))
    assert tensor(made(stored(100**6), sizes, strides)) is not None


# safetensors and JSON


def received(path: Path, content: bytes) -> ReceivedFile:
    path.write_bytes(content)
    return ReceivedFile(path.name, path, len(content))


def safetensors(path: Path, header: Any, payload: bytes = b"") -> ReceivedFile:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return received(path, len(raw).to_bytes(8, "little") + raw + payload)


def test_a_header_past_counting_is_refused(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F32", "shape": [1 << 70, 0], "data_offsets": [0, 0]}}
    with pytest.raises(Refusal) as refused:
        safetensors_header.tensors(safetensors(tmp_path / "m.safetensors", header))
    assert refused.value.refused.code == ReasonCode.BROKEN_WEIGHTS


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F6_E3M2"])
def test_types_of_newer_writers_are_told(tmp_path: Path, dtype: str) -> None:
    header = {"w": {"dtype": dtype, "shape": [8], "data_offsets": [0, 4]}}
    with pytest.raises(Refusal) as refused:
        safetensors_header.tensors(safetensors(tmp_path / "m.safetensors", header, b"\0" * 4))
    assert refused.value.refused.code == ReasonCode.UNSUPPORTED_TENSOR
    assert f"element type {dtype} is not supported" in refused.value.refused.message


def test_json_of_too_many_values_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("it was parsed")

    data = b'{"a":[' + b"[]," * bounded_json.MAX_NODES + b"1]}"
    monkeypatch.setattr(json, "loads", never)
    with pytest.raises(Refusal) as refused:
        bounded_json.parse(data, "config.json")
    assert refused.value.refused.code == ReasonCode.TOO_LARGE_TO_READ


def test_an_array_is_read_where_one_may_be(tmp_path: Path) -> None:
    file = received(tmp_path / "modules.json", b'[{"idx": 0}]')
    assert bounded_json.parse_file_any(file) == [{"idx": 0}]
    with pytest.raises(Refusal):
        bounded_json.parse_file(file)
    with pytest.raises(Refusal):
        bounded_json.parse_any(b"1", "x.json")


# distributed checkpoints


def checkpoint(chunks: Any, dtype: Any = None) -> Call:
    """A `.metadata` of one thousand tensors that share their chunks."""

    def call(name: str, **fields: Any) -> Call:
        return Call(Global(dcp_metadata._METADATA, name), (), Items(list(fields.items())))

    properties = Call(
        Global(dcp_metadata._METADATA, "TensorProperties"), (), (dtype or Global("torch", "float32"),)
    )
    entry = call("TensorStorageMetadata", size=(4,), properties=properties, chunks=chunks)
    index = [
        (
            call("MetadataIndex", fqn=f"w{n}", offset=(0,)),
            call("_StorageInfo", relative_path="__0_0.distcp", offset=0, length=9),
        )
        for n in range(1000)
    ]
    tensors_ = [(f"w{n}", entry) for n in range(1000)]
    return call("Metadata", state_dict_metadata=Items(tensors_), storage_data=Items(index))


def chunk() -> Call:
    fields = Items([("offsets", (0,)), ("sizes", (4,))])
    return Call(Global(dcp_metadata._METADATA, "ChunkStorageMetadata"), (), fields)


@pytest.mark.parametrize("case", ["chunks", "type", "fields"])
def test_shared_parts_of_a_checkpoint_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    fields = Call(Global("x", "y"), (), Items([(f"f{n}", 1) for n in range(MANY)]))
    root = {
        "chunks": lambda: checkpoint([chunk()] * 100_000),
        "type": lambda: checkpoint([chunk()], unfolding()),
        "fields": lambda: checkpoint([fields]),
    }[case]()
    monkeypatch.setattr(dcp_metadata, "_root", lambda _file: root)
    with within_a_second(), pytest.raises(Refusal) as refused:
        dcp_metadata.read(received(tmp_path / ".metadata", b"\0" * 100_000))
    assert refused.value.refused.code == ReasonCode.BROKEN_WEIGHTS


def test_a_plain_checkpoint_passes_the_same_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dcp_metadata, "_root", lambda _file: checkpoint([chunk()]))
    said = dcp_metadata.read(received(tmp_path / ".metadata", b"\0" * 100_000))
    assert collections.Counter(each.dtype for each in said.tensors) == {"F32": 1000}
