from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.platforms import log_files


@given(st.lists(st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=40), max_size=60),
       st.integers(0, 70))  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_tail_is_the_end_of_the_file(tmp_path: Path, lines: list[str], count: int) -> None:
    path = tmp_path / "a.log"
    path.write_text("".join(f"{line}\n" for line in lines))
    assert log_files.tail(path, count) == (tuple(lines[-count:]) if count else ())


def test_no_file_has_no_lines(tmp_path: Path) -> None:
    assert log_files.tail(tmp_path / "none.log", 5) == ()


def test_a_huge_single_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"x" * 10_000_000)
    (line,) = log_files.tail(path, 20)
    assert len(line) == 2000


def test_a_long_log_is_moved_aside_under_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    writer = log_files.open_for(path)
    os.write(writer, b"old" * 100)
    assert log_files.bound(path, 200)
    os.write(writer, b"new\n")
    os.close(writer)
    assert path.read_bytes() == b"new\n"
    assert path.with_name("a.log.1").read_bytes() == b"old" * 100
    assert not log_files.bound(path, 200)


def test_a_full_disk_still_bounds_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "web.log"
    path.write_bytes(b"x" * 100)

    def full(source: Path, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log_files.shutil, "copyfile", full)
    assert log_files.bound(path, 10)
    assert path.stat().st_size == 0
    assert not path.with_name("web.log.1").exists()
