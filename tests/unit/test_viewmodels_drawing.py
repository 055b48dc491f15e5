"""Sparklines and pictures: right pixels, no drawing of what is not there."""

import base64
import struct
import zlib

from hypothesis import given
from hypothesis import strategies as st

from control_plane.ui.viewmodels import picture, sparkline
from serving_agent.contract.signature import TensorSpec


@given(st.lists(st.none() | st.floats(0, 1e9), max_size=60))
def test_sparkline_stays_in_its_box_and_keeps_gaps(values: list[float | None]) -> None:
    drawn = sparkline.paths(values)
    known = sum(value is not None for value in values)
    assert (drawn == ()) == (known < 2)
    for path in drawn:
        for point in path[1:].split("L"):
            x, y = map(float, point.split())
            assert -0.6 <= x <= sparkline.WIDTH + 0.6
            assert 0 <= y <= sparkline.HEIGHT


def test_a_gap_splits_the_line() -> None:
    assert len(sparkline.paths([1.0, 2.0, None, 1.0, 3.0])) == 2


def _decode(url: str) -> tuple[tuple[int, ...], list[bytes]]:
    png = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    header = struct.unpack(">IIBBBBB", png[16:29])
    length = struct.unpack(">I", png[33:37])[0]
    raw = zlib.decompress(png[41 : 41 + length])
    stride = len(raw) // header[1]
    return header, [raw[i * stride + 1 : (i + 1) * stride] for i in range(header[1])]


def test_grey_picture_has_the_pixels_of_the_tensor() -> None:
    plane = [[0.0, 0.5, 1.0, 0.25]] * 4
    url = picture.data_url([plane], (1, 4, 4))
    assert url is not None
    header, rows = _decode(url)
    assert header[:4] == (4, 4, 8, 0)
    assert rows[0] == bytes([0, 128, 255, 64])


def test_colour_picture_interleaves_channels() -> None:
    planes = [[[float(c == k)] * 4 for _ in range(4)] for c, k in ((0, 0), (1, 0), (2, 2))]
    url = picture.data_url(planes, (3, 4, 4))
    assert url is not None
    header, rows = _decode(url)
    assert header[3] == 2
    assert rows[0][:3] == bytes([255, 0, 255])


def test_what_is_no_picture_is_not_drawn() -> None:
    assert picture.data_url([[[0.0] * 4] * 3], (1, 4, 4)) is None
    assert picture.data_url([[["x"] * 4] * 4], (1, 4, 4)) is None
    assert picture.data_url([[[float("nan")] * 4] * 4], (1, 4, 4)) is None
    assert picture.data_url(None, (1, 4, 4)) is None
    assert picture.picture_shape(TensorSpec("x", "FP32", (-1, 1, 8, 8))) == (1, 8, 8)
    for spec in (
        TensorSpec("x", "BYTES", (-1, 1, 8, 8)),
        TensorSpec("x", "FP32", (-1, 2, 8, 8)),
        TensorSpec("x", "FP32", (-1, 1, -1, 8)),
        TensorSpec("x", "FP32", (-1, 64)),
    ):
        assert picture.picture_shape(spec) is None
