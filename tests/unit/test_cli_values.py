from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.cli import declarations, deploy, output
from control_plane.cli.endpoints import fresh_lines
from control_plane.cli.exit_codes import ExitCode, of_status
from control_plane.cli.push import files_of
from control_plane.errors import InvalidInputError


@pytest.mark.parametrize(
    ("text", "written"),
    [("x:FP32:-1,4", "x:FP32[-1,4]"), ("a:b:int64:2", "a:b:INT64[2]"), ("t:bytes:-1", "t:BYTES[-1]")],
)
def test_a_tensor_is_read(text: str, written: str) -> None:
    assert str(declarations.tensor(text)) == written


@pytest.mark.parametrize(
    "text", ["", "x", "x:FP32", "x:FP32:", "x:FP99:1", "x:FP32:0", "x:FP32:a", ":FP32:1"]
)
def test_what_is_no_tensor_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        declarations.tensor(text)
    assert "NAME:DATATYPE:SIZES" in str(caught.value.next_step)


def test_metadata_keeps_numbers_and_text() -> None:
    pairs = ["accuracy=0.97", "note=a=b", "ok=true", "dataset=digits"]
    assert declarations.metadata(pairs) == {"accuracy": 0.97, "note": "a=b", "ok": True, "dataset": "digits"}
    with pytest.raises(InvalidInputError):
        declarations.metadata(["novalue"])


@pytest.mark.parametrize(
    ("text", "size"), [("1024", 1024), ("2GiB", 2**31), ("1.5 MiB", 3 * 2**19), ("10 B", 10)]
)
def test_a_memory_size_is_read(text: str, size: int) -> None:
    assert declarations.size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "2GB", "-1", "lots"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        declarations.size_bytes(text)


def test_a_bare_input_becomes_a_body_and_a_body_stays() -> None:
    assert deploy.request_body("[[1, 2]]") == {"input": [[1, 2]]}
    assert deploy.request_body('{"a": [1]}') == {"input": {"a": [1]}}
    assert deploy.request_body('{"input": [1]}') == {"input": [1]}
    with pytest.raises(InvalidInputError):
        deploy.request_body("nonsense")


@given(st.lists(st.text(max_size=3), max_size=20, unique=True), st.data())
def test_followed_lines_come_once_and_in_order(log: list[str], data: st.DataObject) -> None:
    window = data.draw(st.integers(1, 10))
    shown: list[str] = []
    before: list[str] = []
    end = 0
    while end < len(log):
        end = min(len(log), end + data.draw(st.integers(1, window)))
        now = log[max(0, end - window) : end]
        shown += fresh_lines(before, now)
        before = now
    assert shown == log


def test_every_error_status_has_its_exit_code() -> None:
    assert [of_status(s) for s in (400, 404, 409, 422, 503, 500)] == [
        ExitCode.USAGE, ExitCode.NOT_FOUND, ExitCode.REFUSED, ExitCode.REFUSED, ExitCode.UNREACHABLE,
        ExitCode.FAILED,
    ]  # fmt: skip


def test_hidden_files_of_a_folder_stay_behind(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "a" / ".git").mkdir(parents=True)
    (tmp_path / "a" / ".git" / "config").write_text("secret")
    (tmp_path / "a" / "config.json").write_text("{}")
    assert list(files_of(tmp_path)) == ["a/config.json"]
    with pytest.raises(InvalidInputError):
        files_of(tmp_path / "nothing")


def test_sizes_and_timings_for_people() -> None:
    assert [output.size(n) for n in (0, 1023, 1024, 57 * 1024 + 102)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "57.1 KiB",
    ]
    assert output.timings({"start": 0.5, "load": 0.25}) == "start 0.50 s + load 0.25 s = 0.75 s"
