"""Answers of stable and candidate to the same requests: brought together, compared, the worst picked. Pure.

Two answers are compared by the first of these that says something:

==========  =======================================================  =======================================
measure     they disagree when                                       distance
==========  =======================================================  =======================================
error       one was answered and the other failed at the model       MAX_DISTANCE
nonfinite   NaN or infinities stand in different places              MAX_DISTANCE
form        names, types or shapes of their outputs differ; the      MAX_DISTANCE
            number of classes may, as classes go by name
class       a row's class differs                                    share of rows that differ
token       the likeliest token at a row's last position differs     share of rows that differ
text        an element differs by a single byte                      share of elements that differ
value       a row differs by more than noise                         largest relative difference of a row
size        never: outputs were too large to keep, so nobody knows   0
==========  =======================================================  =======================================

The relative difference of two rows is their largest |a - b| over the largest magnitude in either, so that an
element near zero is measured against its row. Up to RELATIVE_NOISE of the output's type is noise, and so is
an absolute difference up to ABSOLUTE_NOISE. Whole numbers and booleans agree only where they are equal.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from serving_agent import tensors
from serving_agent.contract.capture import Capture, CapturedTensor
from serving_agent.contract.signature import DATATYPES
from serving_agent.datatypes import FLOATS
from serving_agent.errors import InvalidRequestError

RELATIVE_NOISE: Final = {"FP64": 1e-3, "FP32": 1e-3, "FP16": 2e-3, "BF16": 1.6e-2}
"""Relative difference of a row that agrees, by type: for half precision two steps of it."""
ABSOLUTE_NOISE: Final = 1e-6
"""Absolute difference of floating-point values that agrees, however small they are."""
MAX_DISTANCE: Final = 2.0
"""No distance is larger: two numbers of opposite sign and equal magnitude are so far apart."""
SIZE: Final = "size"
LARGEST: Final = float(np.finfo(np.float64).max)
MAX_UNMATCHED: Final = 2048
"""Captures of each side that are kept for a partner that may still come."""

Array = npt.NDArray[np.float64]
Elements = npt.NDArray[Any]


class Pair(msgspec.Struct, frozen=True):
    """One request, answered by both."""

    stable: Capture
    candidate: Capture


class Joined(msgspec.Struct, frozen=True):
    """Pairs in order of the later answer's time, and what has no partner yet, oldest first."""

    pairs: tuple[Pair, ...]
    stable: tuple[Capture, ...]
    candidate: tuple[Capture, ...]


class Comparison(msgspec.Struct, frozen=True):
    """What two answers have in common. Comparing them the other way round says the same."""

    agree: bool
    distance: float
    """In [0, MAX_DISTANCE]; what it measures, `measure` says."""
    measure: str
    """`error`, `form`, `nonfinite`, `class`, `token`, `text`, `value` or `size`."""
    spread: float = 0.0
    """Largest relative difference of their numbers, in [0, MAX_DISTANCE]; orders equal distances."""

    @property
    def is_known(self) -> bool:
        """Whether anything could be compared at all; if not, it counts neither way."""
        return self.measure != SIZE


class Compared(msgspec.Struct, frozen=True):
    """A pair and what came of comparing it."""

    pair: Pair
    comparison: Comparison


def join(
    stable: Iterable[Capture], candidate: Iterable[Capture], max_unmatched: int = MAX_UNMATCHED
) -> Joined:
    """Bring together what both answered: same rollout, request id and fingerprint.

    Hand what stays unmatched in again with the next captures. Of each side the newest *max_unmatched* stay;
    answers to requests that were never copied are among them. Where one id and fingerprint comes several
    times, as by a client's own retries, the answers are paired in order of time.
    """
    waiting: defaultdict[tuple[str, str, str], deque[Capture]] = defaultdict(deque)
    for capture in _by_time(stable):
        waiting[_key(capture)].append(capture)
    pairs: list[Pair] = []
    alone: list[Capture] = []
    for capture in _by_time(candidate):
        partners = waiting.get(_key(capture))
        if partners:
            pairs.append(Pair(partners.popleft(), capture))
        else:
            alone.append(capture)
    left = _by_time(capture for captures in waiting.values() for capture in captures)
    pairs.sort(key=lambda pair: max(pair.stable.at, pair.candidate.at))
    return Joined(tuple(pairs), _newest(left, max_unmatched), _newest(alone, max_unmatched))


def compare(stable: Capture, candidate: Capture) -> Comparison:
    """Compare two answers to one request. Never raises: what cannot be read disagrees by its `form`."""
    if stable.error or candidate.error:
        return _verdict("error", agree=bool(stable.error) and bool(candidate.error))
    if stable.nonfinite != candidate.nonfinite:
        return _verdict("nonfinite", agree=False)
    if _form(stable) != _form(candidate):
        return _verdict("form", agree=False)
    try:
        parts = [_compare_tensors(a, b) for a, b in zip(stable.outputs, candidate.outputs, strict=True)]
    except (InvalidRequestError, ValueError):
        return _verdict("form", agree=False)
    if any(part.measure == "nonfinite" for part in parts):
        return _verdict("nonfinite", agree=False)
    if stable.decisions:
        return _compare_decisions(stable, candidate, parts)
    return max(parts, key=_severity, default=_UNKNOWN)


def compared(pairs: Iterable[Pair]) -> list[Compared]:
    """Compare each of *pairs*; those of which nothing could be compared are left out."""
    every = [Compared(pair, compare(pair.stable, pair.candidate)) for pair in pairs]
    return [each for each in every if each.comparison.is_known]


def worst(pairs: Iterable[Compared], keep: int) -> list[Compared]:
    """Return the *keep* disagreements that lie farthest apart, worst first; agreements are left out."""
    disagreeing = [each for each in pairs if not each.comparison.agree]
    return sorted(disagreeing, key=_rank)[:keep]


def _rank(each: Compared) -> tuple[float, float, float, str]:
    comparison, stable = each.comparison, each.pair.stable
    return -comparison.distance, -comparison.spread, stable.at, stable.request_id


def _key(capture: Capture) -> tuple[str, str, str]:
    return capture.rollout, capture.request_id, capture.fingerprint


def _by_time(captures: Iterable[Capture]) -> list[Capture]:
    return sorted(captures, key=lambda capture: (capture.at, capture.seq))


def _newest(ordered: Sequence[Capture], most: int) -> tuple[Capture, ...]:
    return tuple(ordered[max(0, len(ordered) - most) :])


def _verdict(measure: str, *, agree: bool) -> Comparison:
    distance = 0.0 if agree else MAX_DISTANCE
    return Comparison(agree, distance, measure, distance)


def _severity(part: Comparison) -> tuple[bool, bool, float, float]:
    """What speaks for all outputs: one that disagrees, else one that nobody knows, else the farthest."""
    return not part.agree, not part.is_known, part.distance, part.spread


_UNKNOWN: Final = _verdict(SIZE, agree=True)


def _form(capture: Capture) -> object:
    """What must be alike for answers to be compared: rows decide the same kind of thing, outputs fit.

    A class is known by its name: how many others there are to choose from may differ.
    """
    decides = (capture.decides, len(capture.decisions))
    outputs = tuple((tensor.name, tensor.datatype, len(tensor.shape)) for tensor in capture.outputs)
    if capture.decisions:
        return decides, outputs
    return decides, outputs, tuple(tensor.shape for tensor in capture.outputs)


def _compare_decisions(stable: Capture, candidate: Capture, parts: Sequence[Comparison]) -> Comparison:
    both = zip(stable.decisions, candidate.decisions, strict=True)
    share = sum(a != b for a, b in both) / len(stable.decisions)
    spread = max((part.spread for part in parts), default=0.0)
    return Comparison(share == 0, share, stable.decides or "class", spread)


def _compare_tensors(stable: CapturedTensor, candidate: CapturedTensor) -> Comparison:
    if stable.data is None or candidate.data is None or stable.shape != candidate.shape:
        return _UNKNOWN
    if stable.datatype == "BYTES":
        return _compare_texts(_array(stable), _array(candidate))
    numbers = _rows(stable), _rows(candidate)
    if stable.datatype in FLOATS:
        return _compare_floats(*numbers, RELATIVE_NOISE[stable.datatype])
    relative, _ = _differences(*numbers)
    return _value(agree=stable.data == candidate.data, relative=relative)


def _compare_texts(stable: Elements, candidate: Elements) -> Comparison:
    both = list(zip(stable.tolist(), candidate.tolist(), strict=True))
    share = sum(a != b for a, b in both) / max(1, len(both))
    return Comparison(share == 0, share, "text")


def _compare_floats(stable: Array, candidate: Array, noise: float) -> Comparison:
    if not np.array_equal(_broken(stable), _broken(candidate), equal_nan=True):
        return _verdict("nonfinite", agree=False)
    relative, absolute = _differences(
        np.nan_to_num(stable, posinf=0, neginf=0), np.nan_to_num(candidate, posinf=0, neginf=0)
    )
    is_noise = (relative <= noise) | (absolute <= ABSOLUTE_NOISE)
    return _value(agree=bool(is_noise.all()), relative=relative if is_noise.all() else relative[~is_noise])


def _value(*, agree: bool, relative: Array) -> Comparison:
    distance = float(relative.max(initial=0.0))
    return Comparison(agree, distance, "value", distance)


def _differences(stable: Array, candidate: Array) -> tuple[Array, Array]:
    """Return the relative and the absolute difference of each row of arrays of shape (rows, elements).

    Halves are subtracted: the difference of the largest numbers there are would overflow.
    """
    half = np.abs(stable / 2 - candidate / 2).max(axis=1, initial=0.0)
    scale = np.maximum(np.abs(stable), np.abs(candidate)).max(axis=1, initial=0.0) / 2
    relative = np.divide(half, scale, out=np.zeros_like(half), where=scale > 0)
    return relative, np.minimum(half, LARGEST / 2) * 2


def _broken(array: Array) -> Array:
    """Return *array* with 0 for every finite element: where NaN and infinities stand, and which."""
    return np.where(np.isfinite(array), 0.0, array)


def _rows(tensor: CapturedTensor) -> Array:
    array = _array(tensor).astype(np.float64)
    rows = tensor.shape[0] if tensor.shape else 1
    return array.reshape(rows, -1) if array.size else array.reshape(0, 0)


def _array(tensor: CapturedTensor) -> Elements:
    """Return a flat array of its elements. Raises InvalidRequestError or ValueError where it is none."""
    if min(tensor.shape, default=0) < 0 or tensor.datatype not in DATATYPES:
        raise ValueError(f"{tensor.name!r} is no tensor")
    return tensors.from_raw(tensor.data or b"", math.prod(tensor.shape), tensor.datatype, tensor.name)
