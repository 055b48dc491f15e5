"""Several requests' arrays as one batch, and its outputs as theirs again. Pure.

All arrays of a batch have the same shape but for the first dimension, the rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np

from serving_agent.contract.signature import Signature
from serving_agent.datatypes import Array
from serving_agent.messages import OutputTensor

Inputs = Mapping[str, Array]


def is_batchable(signature: Signature) -> bool:
    """Tell whether every tensor of *signature* has rows in its first dimension."""
    specs = (*signature.inputs, *signature.outputs)
    return bool(signature.inputs) and all(spec.shape[:1] == (-1,) for spec in specs)


def padded_rows(rows: int, buckets: Sequence[int]) -> int:
    """Return the smallest of the ascending *buckets* that holds *rows*; *rows* itself where none does."""
    index = bisect_left(buckets, rows)
    return buckets[index] if index < len(buckets) else rows


def join(members: Sequence[Inputs], rows: int) -> Inputs:
    """Return the members' rows one after another, up to *rows* by repeating the last row.

    A repeated row is one the model can take, as a row of zeros may not be.
    """
    if len(members) == 1 and _rows(members[0]) == rows:
        return members[0]
    return {name: _joined([member[name] for member in members], rows) for name in members[0]}


def copied(inputs: Inputs) -> Inputs:
    """Return *inputs* in memory of their own: a model may work in place on what it is given."""
    return {name: array.copy() for name, array in inputs.items()}


def split(outputs: Sequence[OutputTensor], rows: Sequence[int]) -> list[tuple[OutputTensor, ...]]:
    """Return each member's outputs, as views, for the *rows* each brought; padding falls away."""
    parts: list[tuple[OutputTensor, ...]] = []
    start = 0
    for count in rows:
        stop = start + count
        parts.append(
            tuple(OutputTensor(output.name, output.datatype, output.array[start:stop]) for output in outputs)
        )
        start = stop
    return parts


def holds_rows(outputs: Sequence[OutputTensor], rows: int) -> bool:
    """Tell whether every output has *rows* rows: the model answered row by row."""
    return all(output.array.shape[:1] == (rows,) for output in outputs)


def _rows(inputs: Inputs) -> int:
    return int(next(iter(inputs.values())).shape[0])


def _joined(arrays: list[Array], rows: int) -> Array:
    first = arrays[0]
    joined = np.empty((rows, *first.shape[1:]), dtype=first.dtype)
    start = 0
    for array in arrays:
        stop = start + array.shape[0]
        joined[start:stop] = array
        start = stop
    joined[start:] = joined[start - 1]
    return joined
