"""Rows an artefact is measured on, grouped so that they fit into batches. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import numpy as np

from control_plane.optimization.messages import HoldoutRow
from serving_agent.contract.signature import Signature
from serving_agent.datatypes import Array

MADE_UP_ROWS = 64
"""Rows that are made up where there are none."""


def made_up(sample: Mapping[str, Array], rows: int = MADE_UP_ROWS) -> tuple[HoldoutRow, ...]:
    """Rows like *sample*, one row of a warm-up: floats drawn anew, whole numbers and texts as they are.

    The same every time: both sides are asked the same.
    """
    random = np.random.default_rng(1)
    return tuple(
        HoldoutRow(inputs={name: _like(array[0], random) for name, array in sample.items()})
        for _ in range(rows)
    )


def _like(values: Any, random: np.random.Generator) -> Any:
    if isinstance(values, bytes):
        return values.decode()
    if values.dtype.kind == "f":
        return random.standard_normal(values.shape).astype(values.dtype).tolist()
    return random.integers(0, 2, values.shape).tolist() if values.dtype.kind in "iu" else values.tolist()


def groups(rows: Sequence[HoldoutRow], signature: Signature) -> list[list[int]]:
    """Indexes of rows whose tensors have the same shapes, in order; texts go with any."""
    found: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    numeric = [spec.name for spec in signature.inputs if spec.datatype != "BYTES"]
    for index, row in enumerate(rows):
        found.setdefault(tuple(np.shape(row.inputs[name]) for name in numeric), []).append(index)
    return list(found.values())


def chunks(indexes: Sequence[int], size: int) -> list[Sequence[int]]:
    """*indexes* in runs of at most *size*."""
    return [indexes[start : start + size] for start in range(0, len(indexes), size)]


def batch(rows: Sequence[HoldoutRow], signature: Signature, size: int) -> list[HoldoutRow]:
    """*size* rows of one shape, the commonest one, from the beginning again when they run out."""
    commonest = max(groups(rows, signature), key=len)
    return [rows[index] for index in islice(cycle(commonest), size)]
