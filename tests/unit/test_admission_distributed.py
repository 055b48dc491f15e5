"""Distributed checkpoints: what their readers find, and that hostile bytes never break them."""

from __future__ import annotations

import functools
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from control_plane.admission import coverage, dcp_metadata, dcp_tensors, sharded_safetensors
from control_plane.admission.base import ReceivedFile, Refusal
from control_plane.admission.tensors import Piece, SourceTensor, Storage, whole
from control_plane.nemo_rl import form_megatron, slices
from tests.fakes import nemo_rl_runs as fakes

SIZES = (st.integers(1, 7), st.integers(1, 5))


def received(path: Path) -> ReceivedFile:
    return ReceivedFile(path.name, path, path.stat().st_size)


def found(folder: Path) -> dcp_tensors.Found:
    files = {path.name: received(path) for path in folder.glob("*.distcp")}
    return dcp_tensors.read(received(folder / ".metadata"), files)


def test_scanning_and_planning_import_no_torch() -> None:
    code = (
        "import sys; from control_plane.nemo_rl import run, sources, shards, preflight;"
        "print([m for m in ('torch', 'numpy', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_gates_readers_import_no_pickle() -> None:
    code = (
        "import sys; from control_plane.admission import dcp_tensors, sharded_safetensors;"
        "print([m for m in ('torch', 'pickle', '_pickle', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_plain_state_dict_keeps_its_names(tmp_path: Path) -> None:
    state = {"model.layer.weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3), "note": "text"}
    fakes.save_dcp(state, tmp_path, one_file=True)
    seen = found(tmp_path)
    assert [(each.name, each.dtype, each.shape) for each in seen.tensors] == [
        ("count", "I64", ()),
        ("model.layer.weight", "F32", (2, 3)),
    ]
    assert seen.left == ("note",)
    assert seen.saved_at == str(tmp_path)
    coverage.check(seen.tensors, "it")


def test_a_wrapped_state_dict_is_unwrapped_and_its_optimiser_left(tmp_path: Path) -> None:
    state = {
        "model": {"model.weight": torch.ones(2)},
        "optimizer": {"state": {"model.weight": torch.ones(2)}},
    }
    fakes.save_dcp(state, tmp_path, one_file=True)
    seen = found(tmp_path)
    assert [each.name for each in seen.tensors] == ["model.weight"]
    assert seen.left == ("optimizer.state.model.weight",)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.float64, torch.bool, torch.uint8, torch.int8]
)
def test_every_common_type_is_read(dtype: torch.dtype, tmp_path: Path) -> None:
    fakes.save_dcp({"x": torch.ones(3).to(dtype)}, tmp_path, one_file=True)
    (tensor,) = found(tmp_path).tensors
    coverage.check([tensor], "it")


@functools.cache
def sample() -> tuple[bytes, bytes]:
    """A `.metadata` and the only data file that belongs to it."""
    with tempfile.TemporaryDirectory() as folder:
        state = {"model": fakes.chunked({"a": torch.ones(4, 3), "b": torch.ones(5)}, 2), "step": 3}
        fakes.save_dcp(state, Path(folder), one_file=True)
        return Path(folder, ".metadata").read_bytes(), Path(folder, "__0_0.distcp").read_bytes()


def refusal_of(folder: Path) -> Refusal | None:
    """Why a checkpoint is not let in, None where it is; anything else is raised."""
    try:
        coverage.check(found(folder).tensors, "it")
    except Refusal as refusal:
        return refusal
    return None


@given(st.integers(0, 1 << 60), st.integers(1, 8), st.booleans())
def test_mutated_checkpoints_are_read_or_refused(seed: int, count: int, data_too: bool) -> None:
    chance = random.Random(seed)
    metadata, data = (bytearray(part) for part in sample())
    for _ in range(count):
        target = data if data_too and chance.random() < 0.5 else metadata
        place = chance.randrange(len(target))
        match chance.randrange(3):
            case 0:
                target[place] = chance.randrange(256)
            case 1:
                del target[place : place + chance.randrange(1, 9)]
            case _:
                target[place:place] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, ".metadata").write_bytes(metadata)
        Path(folder, "__0_0.distcp").write_bytes(data)
        problem = refusal_of(Path(folder))
    assert problem is None or (problem.refused.message and problem.refused.next_step)


@given(st.binary(max_size=300))
def test_any_bytes_as_metadata_are_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, ".metadata")
        path.write_bytes(data or b"x")
        with pytest.raises(Refusal):
            dcp_metadata.read(received(path))


@given(st.binary(max_size=100), st.integers(0, 400))
def test_any_bytes_as_a_shard_are_refused(data: bytes, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shard.safetensors")
        path.write_bytes(size.to_bytes(8, "little") + data)
        assert not sharded_safetensors.is_sharded(received(path))
        with pytest.raises(Refusal):
            sharded_safetensors.tensors([received(path)])


# slices


def values(tensor: SourceTensor, data: list[int]) -> dict[tuple[int, int], int]:
    """What a matrix holds, where element i of its storage is data[i]."""
    return {
        (piece.at[0] + row, piece.at[1] + column): data[
            piece.start + row * piece.strides[0] + column * piece.strides[1]
        ]
        for piece in tensor.pieces
        for row in range(piece.shape[0])
        for column in range(piece.shape[1])
    }


@given(*SIZES, st.data())
def test_rows_are_picked_in_order(height: int, width: int, data: st.DataObject) -> None:
    storage = Storage(Path("x"), 0, height * width)
    cut = data.draw(st.integers(0, height))
    pieces = (
        Piece(storage, 0, (cut, width), (width, 1), (0, 0)),
        Piece(storage, cut * width, (height - cut, width), (width, 1), (cut, 0)),
    )
    matrix = SourceTensor("m", "U8", (height, width), pieces)
    bounds = st.tuples(st.integers(0, height), st.integers(0, height)).map(lambda pair: tuple(sorted(pair)))
    spans = data.draw(st.lists(bounds, max_size=4))
    picked = slices.rows(matrix, "p", [(low, high) for low, high in spans])
    order = [row for low, high in spans for row in range(low, high)]
    numbers = list(range(height * width))
    assert picked.shape == (len(order), width)
    assert coverage.tiles(picked)
    assert values(picked, numbers) == {
        (place, column): row * width + column for place, row in enumerate(order) for column in range(width)
    }


def test_rows_that_are_not_there_do_not_tile() -> None:
    matrix = whole("m", "U8", (3, 2), Storage(Path("x"), 0, 6))
    assert not coverage.tiles(slices.rows(matrix, "p", [(2, 5)]))


def test_a_layer_loses_its_axis() -> None:
    stacked = whole("s", "U8", (2, 3, 4), Storage(Path("x"), 0, 24))
    second = slices.layer(stacked, 1)
    assert second.shape == (3, 4)
    assert second.pieces[0].start == 12
    assert coverage.tiles(second)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"model_type": "mixtral"},
        {"model_type": "llama"},
        {"model_type": "llama", "num_attention_heads": 0},
    ],
)
def test_other_architectures_are_refused_by_name(config: dict[str, object]) -> None:
    from control_plane.errors import RefusedError

    with pytest.raises(RefusedError):
        form_megatron.shape_of(config)
