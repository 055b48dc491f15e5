"""Calibration rows as files: read, and refused with the row and the input that is wrong."""

from __future__ import annotations

import io
import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain import calibration
from control_plane.errors import InvalidInputError, TooLargeError
from serving_agent.contract.signature import Signature, TensorSpec

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 3)), TensorSpec("n", "INT64", (-1, 1))), ())
ROW = {"x": [0.0, 1.0, 2.0], "n": [4]}


def lines(*rows: Any) -> bytes:
    return "\n".join(json.dumps({"inputs": row}) for row in rows).encode()


def npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def test_lists_lines_and_arrays_hold_the_same_rows() -> None:
    listed = json.dumps([{"inputs": ROW}, {"inputs": ROW, "label": "7"}]).encode()
    arrays = npz(x=np.array([ROW["x"]] * 2, dtype=np.float32), n=np.array([ROW["n"]] * 2))
    for content in (listed, lines(ROW, ROW), arrays):
        rows = calibration.parse(content)
        calibration.check(rows, SIGNATURE)
        assert rows == [ROW, ROW]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no row to calibrate with"),
        (b" [] \n", "no row to calibrate with"),
        (npz(x=np.zeros((0, 3)), n=np.zeros((0, 1), dtype=int)), "no row to calibrate with"),
        (b'{"inputs": 3}', "row 1 cannot be read"),
        (b'{"rows": []}', "row 1 cannot be read"),
        (b"\x00\xff", "row 1 cannot be read"),
        (b"PK\x03\x04 broken", ".npz file cannot be read"),
        (npz(x=np.zeros((2, 3)), n=np.zeros((3, 1))), "different numbers of rows: x has 2, n has 3"),
        (npz(x=np.array([object()])), ".npz file cannot be read"),
    ],
    ids=["empty", "empty list", "no rows", "no object", "other key", "bytes", "zip", "uneven", "pickle"],
)
def test_a_file_without_rows_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said.replace(".npz", r"\.npz")) as caught:
        calibration.parse(content)
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**ROW, "x": [0.0, 1.0]}, r"row 2: input 'x' must have shape \[-1, 3\]"),
        ({**ROW, "x": [[0.0, 1.0, 2.0]]}, "row 2: input 'x' must have shape"),
        ({**ROW, "x": [0.0, math.nan, 1.0]}, "row 2: input 'x' holds NaN or infinite values"),
        ({**ROW, "x": [0.0, math.inf, 1.0]}, "row 2: input 'x' holds NaN or infinite values"),
        ({**ROW, "n": [0.5]}, "row 2: .*'n'"),
        ({"x": ROW["x"]}, "row 2: missing input 'n'"),
        ({**ROW, "z": [1]}, "row 2: unknown input 'z'"),
        ({**ROW, "x": ["a", "b", "c"]}, "row 2: .*'x'"),
    ],
    ids=["short", "nested", "nan", "infinite", "fraction", "missing", "unknown", "text"],
)
def test_a_row_that_no_agent_would_take_is_refused_by_number_and_input(
    row: dict[str, Any], said: str
) -> None:
    rows = calibration.parse(lines(ROW, row, ROW))
    with pytest.raises(InvalidInputError, match=said):
        calibration.check(rows, SIGNATURE)


def test_nan_in_arrays_is_refused_too() -> None:
    rows = calibration.parse(npz(x=np.array([[0, 1, 2], [0, np.nan, 2]]), n=np.array([[1], [2]])))
    with pytest.raises(InvalidInputError, match="row 2: input 'x' holds NaN"):
        calibration.check(rows, SIGNATURE)


def test_texts_may_come_as_arrays() -> None:
    rows = calibration.parse(npz(text=np.array([b"a", b"bc"]), more=np.array([["x"], ["y"]])))
    assert rows == [{"text": "a", "more": ["x"]}, {"text": "bc", "more": ["y"]}]


def test_too_many_bytes_and_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooLargeError, match="64 MiB"):
        calibration.parse(bytes(calibration.MAX_BYTES + 1))
    packed = io.BytesIO()
    np.savez_compressed(packed, x=np.zeros((1, calibration.MAX_BYTES // 8 + 8)))
    with pytest.raises(TooLargeError, match="64 MiB"):
        calibration.parse(packed.getvalue())
    with pytest.raises(TooLargeError, match="10000 rows"):
        calibration.parse(npz(x=np.zeros(calibration.MAX_ROWS + 1)))


@given(st.integers(0, 400), st.integers(1, 300))
def test_a_spread_keeps_order_and_both_ends_near(count: int, most: int) -> None:
    kept = calibration.spread(range(count), most)
    assert kept == sorted(set(kept))
    assert len(kept) == min(count, most)
    assert not kept or kept[0] == 0
    if count > most:
        gaps = {after - before for before, after in itertools.pairwise(kept)}
        assert max(gaps, default=1) - min(gaps, default=1) <= 1


def test_a_request_is_taken_apart_into_rows() -> None:
    assert calibration.single_rows({"x": [[1], [2]], "y": ["a", "b"]}) == [
        {"x": [1], "y": "a"},
        {"x": [2], "y": "b"},
    ]
    assert calibration.single_rows({"x": [[1], [2]], "y": ["a"]}) == []
    assert calibration.single_rows({"x": "NaN"}) == []
