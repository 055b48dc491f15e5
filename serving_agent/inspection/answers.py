"""Two answers of one model compared: bit for bit, and by how much they differ. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serving_agent.messages import OutputTensor

Outputs = Sequence[OutputTensor]


def same(one: Outputs, other: Outputs) -> bool:
    """Whether both hold the same bits."""
    return len(one) == len(other) and all(map(_same, one, other))


def difference(one: Outputs, other: Outputs) -> str:
    """Say in how far they differ, for the end of a sentence."""
    if any(a.array.shape != b.array.shape for a, b in zip(one, other, strict=True)):
        return "have other shapes"
    numbers = [
        (a.array.astype(np.float64), b.array.astype(np.float64))
        for a, b in zip(one, other, strict=True)
        if a.datatype != "BYTES"
    ]
    finite = [np.abs(a - b)[np.isfinite(a) & np.isfinite(b)] for a, b in numbers]
    largest = max((float(each.max()) for each in finite if each.size), default=0.0)
    return f"differ by up to {largest:.3g}"


def _same(one: OutputTensor, other: OutputTensor) -> bool:
    a, b = one.array, other.array
    if (one.name, one.datatype, a.shape, a.dtype) != (other.name, other.datatype, b.shape, b.dtype):
        return False
    return bool((a == b).all()) if a.dtype == object else a.tobytes() == b.tobytes()
