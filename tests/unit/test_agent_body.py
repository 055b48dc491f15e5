"""Content encodings of bodies, both ways."""

import gzip
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_agent.body import MAX_MEMBERS, PIECE_BYTES, pack, unpack, wanted_encoding
from serving_agent.errors import AgentError, InvalidRequestError, TooLargeError

ENCODINGS = st.sampled_from([b"gzip", b"deflate"])


@given(st.lists(st.binary(max_size=200), max_size=3), ENCODINGS)
def test_what_is_packed_is_unpacked_again(parts, encoding):
    body = b"".join(parts)
    packed = pack((*parts, memoryview(b"end")), encoding)
    assert unpack(packed, encoding, len(body) + 3) == body + b"end"
    reader = gzip.decompress if encoding == b"gzip" else zlib.decompress
    assert reader(packed) == body + b"end"


@given(st.binary(max_size=60), ENCODINGS, st.integers(0, 60))
def test_anything_is_a_body_or_a_sentence(content, encoding, limit):
    try:
        assert len(unpack(content, encoding, limit)) <= limit
    except AgentError as error:
        assert str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize("pack_it", [gzip.compress, zlib.compress])
@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b" GZip "])
def test_both_headers_are_recognised_under_both_names(pack_it, encoding):
    assert unpack(pack_it(b"x" * 100), encoding, 100) == b"x" * 100


@pytest.mark.parametrize("encoding", [b"", b"identity", b"Identity "])
def test_a_body_without_encoding_is_itself(encoding):
    body = bytearray(b"abc")
    assert unpack(body, encoding, 1) is body


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.integers(0, 1000))
def test_members_of_gzip_follow_one_another(parts, limit):
    body, content = b"".join(map(gzip.compress, parts)), b"".join(parts)
    if len(content) <= limit:
        assert unpack(body, b"gzip", limit) == content == gzip.decompress(body)
    else:
        with pytest.raises(TooLargeError, match=f"larger than the limit of {limit} bytes"):
            unpack(body, b"gzip", limit)


def test_members_larger_than_what_is_unpacked_at_once():
    contents = [
        random.Random(size).randbytes(size) for size in (PIECE_BYTES - 30, 300_000, 1, 2 * PIECE_BYTES)
    ]
    assert unpack(b"".join(map(gzip.compress, contents)), b"gzip", 10**6) == b"".join(contents)


def test_more_members_than_any_writer_makes_are_refused():
    body = gzip.compress(b"", mtime=0) * MAX_MEMBERS
    assert unpack(body, b"gzip", 0) == b""
    with pytest.raises(InvalidRequestError, match="20 bytes behind the end of its gzip stream"):
        unpack(body + gzip.compress(b"", mtime=0), b"gzip", 0)


def test_a_small_body_that_unpacks_to_a_large_one_is_refused_without_unpacking_it():
    with pytest.raises(TooLargeError, match="larger than the limit of 100 bytes"):
        unpack(gzip.compress(b"x" * 101, mtime=0), b"gzip", 100)
    bomb = gzip.compress(b"\0" * 50_000_000, mtime=0)
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            unpack(bomb, b"gzip", 1000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("body", "encoding", "sentence"),
    [
        (gzip.compress(b"x" * 100, mtime=0)[:-1], b"gzip", "cut off: its gzip stream does not end"),
        (b"", b"deflate", "cut off: its deflate stream does not end"),
        (b"plain text", b"gzip", "not valid gzip"),
        (gzip.compress(b"x" * 50, mtime=0)[:-5] + b"12345", b"gzip", "not valid gzip"),
        (gzip.compress(b"x", mtime=0) + b"garbage", b"gzip", "not valid gzip"),
        (gzip.compress(b"x", mtime=0) + gzip.compress(b"y", mtime=0)[:-1], b"gzip", "cut off"),
        (zlib.compress(b"x") * 2, b"deflate", "9 bytes behind the end of its deflate stream"),
        (b"", b"br", "'br' is not supported; use gzip, deflate or none"),
        (b"", b"gzip, gzip", "'gzip, gzip' is not supported"),
        (b"", b"\xff" * 99, "is not supported"),
    ],
)
def test_bodies_that_cannot_be_unpacked(body, encoding, sentence):
    with pytest.raises(InvalidRequestError, match=sentence) as caught:
        unpack(body, encoding, 1000)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    ("accept", "encoding"),
    [
        (b"gzip", b"gzip"),
        (b" Deflate ", b"deflate"),
        (b"gzip, deflate, br", None),
        (b"*", None),
        (b"identity", None),
        (b"", None),
    ],
)
def test_replies_are_packed_for_those_who_name_one_encoding(accept, encoding):
    assert wanted_encoding(accept) == encoding
