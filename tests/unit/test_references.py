"""Which paths and URLs may be imported from."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.references import check_path, check_url, is_url
from control_plane.errors import InvalidInputError

ALLOWED = ("s3://models/team-a/", "https://files.example.com/", "gs://bucket")


@pytest.mark.parametrize(
    "url",
    [
        "s3://models/team-a/run 7".replace(" ", "-"),
        "s3://models/team-a",
        "S3://MODELS/team-a/x",
        "https://files.example.com/a/b.pt",
        "gs://bucket/x",
    ],
)
def test_what_lies_below_an_allowed_start_is_taken(url: str) -> None:
    assert check_url(url, ALLOWED) == url


@pytest.mark.parametrize(
    "url",
    [
        "s3://models/team-b/x", "s3://models/team-a-secret/x", "s3://models2/team-a/x", "http://files.example.com/a",
        "https://files.example.com.evil.org/a", "https://files.example.com:444/a", "gs://bucket2", "memory://x/y",
    ],
)  # fmt: skip
def test_anything_else_says_which_setting_would_allow_it(url: str) -> None:
    with pytest.raises(InvalidInputError, match="not allowed") as caught:
        check_url(url, ALLOWED)
    assert "SIGNALBOX_IMPORT_URLS" in str(caught.value.next_step)


@pytest.mark.parametrize(
    "url",
    [
        "s3://models/team-a/../team-b/x", "s3://models/team-a/%2e%2e/x", "s3://models/team-a/%252e%252e/x",
        "https://me:secret@files.example.com/a", "https://files.example.com@evil.org/a", "zip::s3://models/team-a/x",
        "simplecache::s3://models/team-a/x", "file:///etc/passwd", "local:///etc/passwd", "s3:///x",
        "https://files.example.com/a b", "https://files.example.com\\@evil.org/", "s3://models/team-a/x\n",
    ],
)  # fmt: skip
def test_tricks_are_refused_whatever_is_allowed(url: str) -> None:
    with pytest.raises(InvalidInputError):
        check_url(url, (*ALLOWED, "file:///", "https://evil.org/"))


@given(st.text(max_size=60))
def test_nothing_is_allowed_by_default(text: str) -> None:
    with pytest.raises(InvalidInputError):
        check_url(f"s3://{text}", ())


def test_paths_lie_in_a_root_or_are_refused() -> None:
    roots = (Path("/data/models"),)
    assert check_path(Path("/data/models/run-7"), roots) == Path("/data/models/run-7")
    assert check_path(Path("/data/models"), roots) == Path("/data/models")
    for other in ("/data/models-secret/x", "/data", "/etc/passwd"):
        with pytest.raises(InvalidInputError, match="none of the folders") as caught:
            check_path(Path(other), roots)
        assert "SIGNALBOX_IMPORT_ROOTS" in str(caught.value.next_step)


def test_urls_are_told_from_paths() -> None:
    assert [is_url(text) for text in ("/a/b", "a/b", "s3://a", "zip::s3://a", "C:/x", "https://a/b")] == [
        False, False, True, True, False, True,
    ]  # fmt: skip
