"""Bucket counts as bytes: unsigned 32-bit little-endian, empty buckets at the end left out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

_COUNT: Final = np.dtype("<u4")
LARGEST_COUNT: Final = int(np.iinfo(_COUNT).max)


def encode_counts(counts: Sequence[int] | npt.NDArray[np.int64]) -> bytes:
    """Return *counts* (each >= 0, capped at 2³² - 1) as bytes; no bytes at all when every count is 0."""
    capped = np.minimum(np.asarray(counts, np.int64), LARGEST_COUNT).astype(_COUNT)
    filled = np.flatnonzero(capped)
    return capped[: filled[-1] + 1].tobytes() if len(filled) else b""


def decode_counts(encoded: Sequence[bytes | None], buckets: int) -> npt.NDArray[np.int64]:
    """Return rows of bucket counts, shape (len(encoded), buckets)."""
    width = buckets * _COUNT.itemsize
    joined = b"".join((row or b"").ljust(width, b"\0") for row in encoded)
    return np.frombuffer(joined, _COUNT).reshape(len(encoded), buckets).astype(np.int64)
