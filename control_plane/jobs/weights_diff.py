"""Two sets of stored tensors compared by name: norms, largest difference, equality of bytes. Streaming."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from control_plane.domain.comparison import TensorFacts, TensorPair, WeightsComparison
from control_plane.jobs.stored_tensors import Block, Numbers, StoredTensor, blocks, is_numeric, numbers

Advance = Callable[[float], object]
"""Told the done share in [0, 1], several times a second."""


@dataclass(slots=True)
class _Sum:
    """What is gathered over the blocks of one tensor."""

    squares: float = 0.0
    nonfinite: int = 0

    def add(self, values: Numbers) -> None:
        finite = np.isfinite(values)
        kept = values[finite]
        with np.errstate(over="ignore"):
            self.squares += float(np.vdot(kept, kept).real)
        self.nonfinite += int(values.size - kept.size)

    def facts(self, tensor: StoredTensor) -> TensorFacts:
        norm = math.sqrt(self.squares) if is_numeric(tensor.dtype) else math.inf
        return TensorFacts(tensor.dtype, tensor.shape, norm if math.isfinite(norm) else None, self.nonfinite)


@dataclass(slots=True)
class _Gap:
    """What is gathered of the differences between two tensors of one shape."""

    largest: float = 0.0
    nonfinite: int = 0

    def add(self, a: Numbers, b: Numbers) -> None:
        both = np.isfinite(a) & np.isfinite(b)
        if both.any():
            with np.errstate(over="ignore"):
                self.largest = max(self.largest, float(np.abs(a[both] - b[both]).max()))
        odd_a, odd_b = a[~both], b[~both]
        alike = (odd_a == odd_b) | (np.isnan(odd_a) & np.isnan(odd_b))
        self.nonfinite += int(odd_a.size - alike.sum())


def compare(
    a: Mapping[str, StoredTensor], b: Mapping[str, StoredTensor], advance: Advance
) -> WeightsComparison:
    """Compare all tensors of *a* and *b*; every byte of both is read once, a block of each at a time."""
    began = time.monotonic()
    progress = _Progress(sum(each.size_bytes for each in (*a.values(), *b.values())), advance)
    names = sorted(a.keys() | b.keys())
    pairs = tuple(_pair(name, a.get(name), b.get(name), progress) for name in names)
    return WeightsComparison(pairs, progress.done, time.monotonic() - began)


class _Progress:
    def __init__(self, total: int, advance: Advance) -> None:
        self._total = total
        self._advance = advance
        self.done = 0

    def add(self, size_bytes: int) -> None:
        self.done += size_bytes
        self._advance(self.done / self._total)


def _pair(name: str, a: StoredTensor | None, b: StoredTensor | None, progress: _Progress) -> TensorPair:
    if a is None or b is None:
        one, other = (None if each is None else _alone(each, progress) for each in (a, b))
        return TensorPair(name, one, other, same=False)
    if a.shape != b.shape or not (is_numeric(a.dtype) and is_numeric(b.dtype)):
        return _unlike(name, a, b, progress)
    return _alike(name, a, b, progress)


def _alone(tensor: StoredTensor, progress: _Progress) -> TensorFacts:
    total = _Sum()
    for block in blocks(tensor):
        if is_numeric(tensor.dtype):
            total.add(numbers(block, tensor.dtype))
        progress.add(block.nbytes)
    return total.facts(tensor)


def _unlike(name: str, a: StoredTensor, b: StoredTensor, progress: _Progress) -> TensorPair:
    """Tensors whose values cannot be set against each other; equal ones of an unknown type are the same."""
    same = (a.dtype, a.shape, a.size_bytes) == (b.dtype, b.shape, b.size_bytes) and all(
        _same(one, other) for one, other in zip(blocks(a), blocks(b), strict=True)
    )
    return TensorPair(name, _alone(a, progress), _alone(b, progress), same=same)


def _alike(name: str, a: StoredTensor, b: StoredTensor, progress: _Progress) -> TensorPair:
    left, right, gap = _Sum(), _Sum(), _Gap()
    same = a.dtype == b.dtype
    for one, other in zip(blocks(a), blocks(b), strict=True):
        here, there = numbers(one, a.dtype), numbers(other, b.dtype)
        left.add(here)
        right.add(there)
        if not (same and _same(one, other)):
            same = False
            gap.add(here, there)
        progress.add(one.nbytes + other.nbytes)
    largest = gap.largest if math.isfinite(gap.largest) else None
    return TensorPair(name, left.facts(a), right.facts(b), same, largest, gap.nonfinite)


def _same(one: Block, other: Block) -> bool:
    return one.tobytes() == other.tobytes()
