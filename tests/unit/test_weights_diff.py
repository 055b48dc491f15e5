"""Weights compared tensor by tensor, against torch; JSON compared key by key."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from control_plane.domain.comparison import MAX_CHANGES, Difference, TensorPair, json_changes
from control_plane.errors import ConflictError
from control_plane.jobs import stored_tensors, weights_diff

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def stored(folder: Path, name: str, **tensors: torch.Tensor) -> dict[str, stored_tensors.StoredTensor]:
    save_file({key: value.clone() for key, value in tensors.items()}, folder / f"{name}.safetensors")
    return stored_tensors.index(folder, [f"{name}.safetensors"])


def compared(folder: Path, a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> dict[str, TensorPair]:
    shares: list[float] = []
    found = weights_diff.compare(stored(folder, "a", **a), stored(folder, "b", **b), shares.append)
    assert shares == sorted(shares)
    assert math.isclose(shares[-1], 1.0)
    return {pair.name: pair for pair in found.tensors}


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_all_codes_of_eight_bit_floats_are_read_as_torch_reads_them(dtype: str) -> None:
    codes = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(codes.copy()).view(DTYPES[dtype]).to(torch.float64).numpy()
    np.testing.assert_array_equal(stored_tensors.numbers(codes, dtype), expected)


def test_scales_are_powers_of_two() -> None:
    values = stored_tensors.numbers(np.array([0, 127, 128, 255], np.uint8), "F8_E8M0")
    np.testing.assert_array_equal(values, [2.0**-127, 1.0, 2.0, math.nan])


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_and_difference_are_those_of_torch(tmp_path: Path, dtype: str) -> None:
    torch.manual_seed(1)
    a, b = (torch.randn(3, 700).relu() * 3 for _ in range(2))  # zeros too: what is not is true
    a, b = (each.to(DTYPES[dtype]) for each in (a, b))
    pair = compared(tmp_path, {"w": a}, {"w": b})["w"]
    assert pair.verdict == "changed"
    assert pair.a is not None
    assert (pair.a.dtype, pair.a.shape) == (dtype, (3, 700))
    assert pair.a.norm == pytest.approx(float(a.double().norm()), rel=1e-12)
    assert pair.max_difference == float((a.double() - b.double()).abs().max())


def test_blocks_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.randn(1000), torch.randn(1000)
    whole = compared(tmp_path, {"w": a}, {"w": b})["w"]
    monkeypatch.setattr(stored_tensors, "BLOCK_ELEMENTS", 7)
    pieces = compared(tmp_path, {"w": a}, {"w": b})["w"]
    assert pieces.max_difference == whole.max_difference
    assert pieces.a is not None
    assert whole.a is not None
    assert pieces.a.norm == pytest.approx(whole.a.norm, rel=1e-12)


def test_every_relation_is_told_apart(tmp_path: Path) -> None:
    same = torch.ones(2, 2)
    pairs = compared(
        tmp_path,
        {"same": same, "gone": same, "shape": torch.ones(4), "dtype": same, "value": same},
        {"same": same, "new": same, "shape": same, "dtype": same.half(), "value": same * 1.5},
    )
    assert {name: pair.verdict for name, pair in pairs.items()} == {
        "same": "same", "gone": "only_a", "new": "only_b", "shape": "shape", "dtype": "dtype",
        "value": "changed",
    }  # fmt: skip
    assert pairs["value"].max_difference == 0.5
    assert (pairs["dtype"].max_difference, pairs["dtype"].same) == (0.0, False)
    assert pairs["shape"].max_difference is None
    assert pairs["same"].same


def test_what_is_not_finite_is_counted_and_kept_out_of_sums(tmp_path: Path) -> None:
    nan, inf = math.nan, math.inf
    pair = compared(
        tmp_path,
        {"w": torch.tensor([nan, inf, inf, 1.0, nan, 3.0])},
        {"w": torch.tensor([nan, inf, -inf, nan, 2.0, 4.0])},
    )["w"]
    assert pair.a is not None
    assert pair.b is not None
    assert (pair.a.nonfinite, pair.b.nonfinite) == (4, 4)
    assert pair.a.norm == pytest.approx(math.sqrt(10))
    assert (pair.max_difference, pair.nonfinite_differences) == (1.0, 3)


def test_equal_nans_are_the_same_bit_for_bit(tmp_path: Path) -> None:
    weights = {"w": torch.tensor([math.nan, 0.0]), "zero": torch.tensor([0.0])}
    pairs = compared(tmp_path, weights, {**weights, "zero": torch.tensor([-0.0])})
    assert pairs["w"].same
    assert (pairs["zero"].same, pairs["zero"].max_difference) == (False, 0.0)


def test_empty_and_scalar_tensors(tmp_path: Path) -> None:
    pairs = compared(
        tmp_path,
        {"empty": torch.ones(0, 3), "scalar": torch.tensor(2.0)},
        {"empty": torch.ones(0, 3), "scalar": torch.tensor(-1.0)},
    )
    assert pairs["empty"].same
    assert pairs["scalar"].max_difference == 3.0


def test_numbers_too_large_for_a_sum_give_no_norm(tmp_path: Path) -> None:
    huge = torch.full((2,), 1e300, dtype=torch.float64)
    pair = compared(tmp_path, {"w": huge}, {"w": -huge * 1e8})["w"]
    assert pair.a is not None
    assert pair.a.norm is None
    json.dumps(pair.max_difference, allow_nan=False)


def test_types_we_cannot_read_are_compared_byte_by_byte(tmp_path: Path) -> None:
    def write(name: str, data: bytes) -> dict[str, stored_tensors.StoredTensor]:
        header = json.dumps({"w": {"dtype": "F4_X", "shape": [8], "data_offsets": [0, 4]}}).encode()
        (tmp_path / name).write_bytes(len(header).to_bytes(8, "little") + header + data)
        return stored_tensors.index(tmp_path, [name])

    one, same, other = write("1.safetensors", b"abcd"), write("2.safetensors", b"abcd"), b"abce"
    (equal,) = weights_diff.compare(one, same, lambda _: None).tensors
    (unlike,) = weights_diff.compare(one, write("3.safetensors", other), lambda _: None).tensors
    assert (equal.same, unlike.same, unlike.verdict, unlike.max_difference) == (True, False, "changed", None)
    assert unlike.a is not None
    assert unlike.a.norm is None


def test_shards_are_one_set_of_tensors(tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "model-1.safetensors")
    save_file({"y": torch.ones(1), "x": torch.ones(2)}, tmp_path / "model-2.safetensors")
    found = stored_tensors.index(tmp_path, ["model-2.safetensors", "config.json", "model-1.safetensors"])
    assert {name: each.shape for name, each in found.items()} == {
        "x": (1,), "y": (1,), "x (model-2.safetensors)": (2,),
    }  # fmt: skip


BACKWARDS = b'{"w":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}    '


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 8,
        b"\2" + bytes(7) + b"[]",
        b"\7" + bytes(7) + b'{"a":1}',
        len(BACKWARDS).to_bytes(8, "little") + BACKWARDS,
    ],
)
def test_a_damaged_file_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ConflictError, match=r"x\.safetensors cannot be read"):
        stored_tensors.index(tmp_path, ["x.safetensors"])


@pytest.mark.parametrize("missing", [100, 101, 3])
def test_a_cut_file_is_noticed(tmp_path: Path, missing: int) -> None:
    """In the middle of an element too: what is left of it is no block."""
    found = stored(tmp_path, "a", w=torch.ones(1000))
    path = tmp_path / "a.safetensors"
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(ConflictError, match="shorter than its header says"):
        stored_tensors.index(tmp_path, ["a.safetensors"])
    with pytest.raises(ConflictError, match="shorter than its header says"):
        weights_diff.compare(found, {}, lambda _: None)


def test_memory_does_not_grow_with_the_tensor(tmp_path: Path) -> None:
    """32 MiB on each side: an implementation that holds a whole tensor as float64 needs 128 MiB."""
    big = torch.zeros(8 * 2**20)
    sides = stored(tmp_path, "a", w=big), stored(tmp_path, "b", w=big + 1)
    tracemalloc.start()
    try:
        (pair,) = weights_diff.compare(*sides, lambda _: None).tensors
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pair.max_difference == 1.0
    assert peak < 32 * 2**20


LEAF = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
CONFIG = st.dictionaries(
    st.text("abc", min_size=1, max_size=2), LEAF | st.dictionaries(st.text("xyz", min_size=1), LEAF)
)


@given(CONFIG, CONFIG)
@settings(max_examples=200)
def test_changes_of_json_are_found_from_either_side(a: dict[str, Any], b: dict[str, Any]) -> None:
    changes = json_changes(a, b)
    assert json_changes(a, a) == ()
    assert changes == tuple(Difference(each.name, each.b, each.a) for each in json_changes(b, a))
    assert bool(changes) == (_kept(a) != _kept(b))


def _kept(config: dict[str, Any]) -> str:
    return json.dumps(config, sort_keys=True)


def test_changes_name_their_path() -> None:
    before = {"rope": {"theta": 1e4, "kept": 1}, "layers": [1, 2]}
    changes = json_changes(before, {"rope": {"theta": 1e6, "kept": 1}, "new": True})
    assert changes == (
        Difference("layers", "[1,2]", None),
        Difference("new", None, True),
        Difference("rope.theta", 1e4, 1e6),
    )
    assert len(json_changes({str(n): n for n in range(MAX_CHANGES + 5)}, {})) == MAX_CHANGES
