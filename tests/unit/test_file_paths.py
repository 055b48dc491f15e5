"""Which file paths an upload may hold."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.file_paths import MAX_FILES, check_path, check_paths
from control_plane.errors import InvalidInputError

TRAVERSALS = [
    "..", "../x", "a/../../x", "a/..", "./x", "a/./x", "/etc/passwd", "//etc/passwd",
    "a//b", "a/", "", " ", "a\\b",
    "..\\x", "\\\\host\\share", "C:/x", "c:x", "x\0y", "x\ny", "\x7f", "~", "~/x", "%2e%2e/x", "..%2fx",
    "%2e%2e%2fx", "%252e%252e%252fx", "%25252e%25252e/x", "..%5cx", "%00", "a%00b",
    "..;/x", "a/..;x/y", "...",
    "．．/x", "‥/x", "a／../x", "..／x", "file:///etc/passwd", "http://host/x", "a/ /b", "a/b ", " a", "a./b",
    "%2fetc", "%c0%ae%c0%ae/x", "\u2028", "a" * 2000, "a/" + "b" * 300, "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("path", TRAVERSALS, ids=ascii)
def test_every_spelling_of_somewhere_else_is_refused(path: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_path(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "path",
    [
        "model.pt",
        "a/b/c.bin",
        "with space.pt",
        "ünïcode/模型.pt",
        "100%.txt",
        "a#b?c=d.pt",
        "a..b",
        ".hidden",
        "x~y",
        "a;b",
    ],
)
def test_odd_but_legal_names_survive(path: str) -> None:
    assert check_path(path) == path


@given(st.text(max_size=60) | st.text(alphabet="./\\%2ef5c~ aC:;\0．", max_size=30))
def test_whatever_is_let_in_stays_in_its_folder(path: str) -> None:
    try:
        check_path(path)
    except InvalidInputError:
        return
    joined = posixpath.normpath(posixpath.join("/store/upload", path))
    assert joined.startswith("/store/upload/")
    assert joined == "/store/upload/" + path


@pytest.mark.parametrize(
    "paths",
    [
        [],
        ["a", "a"],
        ["Model.pt", "model.pt"],
        ["é.pt", "e\u0301.pt"],
        ["a", "a/b"],
        ["a/b/c", "A/b"],
        [f"{n}.bin" for n in range(MAX_FILES + 1)],
    ],
    ids=lambda paths: ascii(paths[:2]),
)
def test_paths_that_cannot_lie_in_one_folder_are_refused(paths: list[str]) -> None:
    with pytest.raises(InvalidInputError):
        check_paths(paths)


def test_a_folder_of_files_is_accepted() -> None:
    check_paths(["config.json", "model.safetensors", "nested/a.txt", "nested/b.txt"])
