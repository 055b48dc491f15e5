"""Example inputs that are pictures, as PNG data URLs (grey or RGB), without an imaging library."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Final

from serving_agent.contract.signature import TensorSpec

MAX_SIDE: Final = 512
_GREY, _RGB = 0, 2


def picture_shape(spec: TensorSpec) -> tuple[int, int, int] | None:
    """(channels, height, width) if *spec* is a batch of pictures: numeric [N, 1 or 3, H, W], sides >= 4."""
    if len(spec.shape) != 4 or spec.datatype in {"BYTES", "BOOL"}:
        return None
    _, channels, height, width = spec.shape
    if channels not in {1, 3} or not (4 <= height <= MAX_SIDE and 4 <= width <= MAX_SIDE):
        return None
    return channels, height, width


def data_url(value: Any, shape: tuple[int, int, int]) -> str | None:
    """A PNG of nested lists [C][H][W] as a data URL; brightness runs from the smallest to the largest value.

    Returns None when *value* is not of *shape* or holds something else than finite numbers. Pure.
    """
    planes = _planes(value, shape)
    if planes is None:
        return None
    flat = [number for plane in planes for row in plane for number in row]
    low, high = min(flat), max(flat)
    scale = 255.0 / (high - low) if high > low else 0.0
    _, height, width = shape
    rows = [
        bytes(round((plane[y][x] - low) * scale) for x in range(width) for plane in planes)
        for y in range(height)
    ]
    png = _png(rows, width, height, _GREY if len(planes) == 1 else _RGB)
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def grey_url(rows: Sequence[bytes], width: int, height: int) -> str:
    """A PNG of *rows* of grey samples, one byte each, as a data URL."""
    return "data:image/png;base64," + base64.b64encode(_png(rows, width, height, _GREY)).decode("ascii")


def _planes(value: Any, shape: tuple[int, int, int]) -> list[list[list[float]]] | None:
    channels, height, width = shape
    if not _sized(value, channels) or not all(_sized(plane, height) for plane in value):
        return None
    rows = [row for plane in value for row in plane]
    if not all(_sized(row, width) and all(_finite(number) for number in row) for row in rows):
        return None
    return [[[float(number) for number in row] for row in plane] for plane in value]


def _sized(value: Any, length: int) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and len(value) == length


def _finite(number: Any) -> bool:
    return isinstance(number, int | float) and abs(number) <= 1e300


def _png(rows: Sequence[bytes], width: int, height: int, colour: int) -> bytes:
    """PNG file of 8-bit samples (PNG specification, third edition: 11.2.2 IHDR, 11.2.3 IDAT, filter 0)."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
