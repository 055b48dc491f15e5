"""Headers of the tus protocol: what is read, what is refused."""

from __future__ import annotations

import base64
import hashlib
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.api import tus_headers
from control_plane.errors import ChecksumError, InvalidInputError

KEYS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=20)


@given(st.dictionaries(KEYS, st.text(max_size=100), max_size=8))
def test_metadata_comes_back_as_it_was_written(pairs: dict[str, str]) -> None:
    assert tus_headers.metadata(tus_headers.format_metadata(pairs)) == pairs


@given(st.text(max_size=200))
def test_any_metadata_is_read_or_refused(text: str) -> None:
    try:
        pairs = tus_headers.metadata(text)
    except InvalidInputError:
        return
    assert all(key and " " not in key and "," not in key for key in pairs)


@pytest.mark.parametrize(
    "text", ["a b64!", "a YQ==,a YQ==", " ", "a YQ==,", "a /w==", "a YQ", "ä YQ==", "a " + "A" * 8192]
)
def test_bad_metadata_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        tus_headers.metadata(text)


def test_a_key_may_stand_alone() -> None:
    assert tus_headers.metadata("draft,path YQ==") == {"draft": "", "path": "a"}
    assert tus_headers.metadata(None) == {}


@given(st.integers(0, 10**18 - 1))
def test_numbers_are_read(value: int) -> None:
    assert tus_headers.number("Upload-Offset", str(value)) == value


@pytest.mark.parametrize("text", [None, "", "-1", "+1", "1.0", "1e3", " 1", "0x10", "٣", "9" * 19, "1,1"])
def test_what_is_no_number_of_bytes_is_refused(text: str | None) -> None:
    with pytest.raises(InvalidInputError, match="Upload-Length"):
        tus_headers.number("Upload-Length", text)


@pytest.mark.parametrize("algorithm", list(tus_headers.ALGORITHMS))
def test_checksums_hold_for_the_bytes_they_are_of(algorithm: str) -> None:
    digest = base64.b64encode(hashlib.new(algorithm, b"abc").digest()).decode()
    right, wrong = (tus_headers.checksum(f"{algorithm} {digest}") for _ in range(2))
    assert right is not None
    assert wrong is not None
    right.update(b"ab")
    right.update(b"c")
    right.require()
    wrong.update(b"abd")
    with pytest.raises(ChecksumError, match=algorithm):
        wrong.require()


@pytest.mark.parametrize(
    "text",
    ["", "sha256", "sha256 !", "md5 1B2M2Y8AsgTpgAmY7PhCfg==", "sha1 YQ==", "SHA256 YQ==", "crc32 AAAAAA=="],
)
def test_checksums_that_are_not_spoken_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        tus_headers.checksum(text)


def test_a_sha256_is_hexadecimal() -> None:
    assert tus_headers.sha256("AB" * 32) == "ab" * 32
    assert tus_headers.sha256(None) is None
    for bad in ("ab", "g" * 64, "ab" * 33):
        with pytest.raises(InvalidInputError):
            tus_headers.sha256(bad)


def test_dates_are_written_as_http_does() -> None:
    assert tus_headers.http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"
    assert parsedate_to_datetime(tus_headers.http_date(1e9)).timestamp() == 1e9
