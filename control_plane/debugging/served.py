"""Whether a run gave the answer that a client got: a kept answer beside the inspected one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from control_plane.debugging import kept
from control_plane.debugging.kept import Array, NotKeptError
from control_plane.domain.served_answer import Answer, Served, told
from serving_agent import tensors
from serving_agent.contract.capture import CapturedTensor
from serving_agent.contract.inspection import InspectedRun, TensorSummary
from serving_agent.errors import InvalidRequestError


def compare(answer: Answer, run: InspectedRun, folder: Path) -> Served:
    """Hold what a client got against the last step of the run in *folder*."""
    last = {tensor.name: tensor for stage in run.stages[-1:] for tensor in stage.tensors}
    compared, left_out, different = [], [], []
    largest: list[float] = []
    for given in answer.outputs:
        pair = _pair(given, last.get(given.name), folder)
        if pair is None:
            left_out.append(given.name)
            continue
        compared.append(given.name)
        theirs, ours = pair
        if not _same(theirs, ours):
            different.append(given.name)
            largest += _difference(theirs, ours)
    max_abs = max(largest, default=None)
    return Served(
        compared=tuple(compared),
        left_out=tuple(left_out),
        different=tuple(different),
        max_abs=max_abs,
        sentence=told(answer.by, compared, different, max_abs),
    )


def _pair(given: CapturedTensor, seen: TensorSummary | None, folder: Path) -> tuple[Array, Array] | None:
    """Both as arrays of one kind; None where one was not kept."""
    if given.data is None or seen is None or given.shape != seen.shape:
        return None
    try:
        theirs = tensors.from_raw(given.data, math.prod(given.shape), given.datatype, given.name)
        ours = kept.elements(folder, seen)
    except (InvalidRequestError, NotKeptError, OSError):
        return None
    if given.datatype == "BYTES":
        theirs = np.array([item.decode(errors="replace") for item in theirs.tolist()], dtype=object)
    return theirs.reshape(given.shape), np.asarray(ours)


def _same(one: Array, other: Array) -> bool:
    if one.dtype == object or other.dtype == object:
        return bool(one.tolist() == other.tolist())
    return (
        one.astype(one.dtype.newbyteorder("<")).tobytes()
        == other.astype(other.dtype.newbyteorder("<")).tobytes()
    )


def _difference(one: Array, other: Array) -> list[float]:
    if one.dtype.kind not in "fiu" or other.dtype.kind not in "fiu" or not one.size:
        return []
    apart = np.abs(one.astype(np.float64) - other.astype(np.float64))
    finite = apart[np.isfinite(apart)]
    return [float(finite.max())] if finite.size else []
