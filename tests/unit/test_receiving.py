"""Chunks of a file, written in one go wherever the system stops in between."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.services.receiving import MOST_BUFFERS, PartFile


def write(folder: Path, chunks: Sequence[bytes], at: int) -> bytes:
    path = folder / "part"
    path.unlink(missing_ok=True)
    part = PartFile(path)
    try:
        part.write(chunks, at)
    finally:
        part.close()
    return path.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.binary(max_size=40), max_size=30),
    st.integers(0, 9),
    st.lists(st.integers(1, 50), min_size=1, max_size=20),
)
def test_a_write_that_is_cut_anywhere_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: list[bytes], at: int, cuts: list[int]
) -> None:
    lengths = iter(cuts * 200)

    def partly(handle: int, buffers: Sequence[memoryview], offset: int) -> int:
        return os.pwrite(handle, b"".join(buffers)[: next(lengths)], offset)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwritev", partly)
        assert write(tmp_path, chunks, at)[at:] == b"".join(chunks)


def test_more_chunks_than_one_call_takes(tmp_path: Path) -> None:
    chunks = [bytes([number % 256]) for number in range(2 * MOST_BUFFERS + 3)]
    assert write(tmp_path, chunks, 0) == b"".join(chunks)
