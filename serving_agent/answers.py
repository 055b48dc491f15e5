"""What an answer comes down to: whether it is finite, what each row decides, and rows by bin. Pure.

A row decides a *class* where the answer holds one: the output `label`, else the largest of `probabilities` or
`logits`, or of any [rows, classes] output with as many classes as the version has labels. It decides a
*token* where `logits` are [rows, positions, vocabulary]: the likeliest one at the last position.

Bins are what drift of the output is judged by. Two agents must sort alike whatever they have seen before, so
of more than MAX_CLASSES classes each goes into one of so many buckets by its name (`~17`); `other`, which
depends on what came first, is left to labels whose number nobody knows. Rows that decide nothing go by the
power of two at or below the magnitude of their mean (`+2^-3`, `-2^5`, `0`, `nan`), over the first output.
Texts have no bins.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np

from serving_agent import tensors
from serving_agent.contract.capture import Decides
from serving_agent.datatypes import FLOATS, Array
from serving_agent.messages import OutputTensor

MAX_CLASSES: Final = 64
"""Classes that have a bin of their own."""
MAX_EXPONENT: Final = 20
"""Largest magnitude of a bin's exponent; what lies beyond goes into the outermost bin."""
MAX_DECISIONS: Final = 256
"""Most rows whose decisions are listed."""
MAX_BINS: Final = 128
"""Most bins of one agent, OTHER not counted: more than one kind of output has."""
FEW: Final = 64
MAX_NAME_CHARS: Final = 64
OTHER: Final = "other"
NAN: Final = "nan"
LABEL: Final = "label"
LOGITS: Final = "logits"
SCORES: Final = frozenset({"probabilities", LOGITS})
"""Outputs whose largest column is a row's class."""


class Summary(msgspec.Struct, frozen=True):
    """One answer, summed up."""

    nonfinite: bool
    decides: Decides
    decisions: tuple[str, ...]
    """By row; empty where rows decide nothing, or are more than MAX_DECISIONS."""
    bins: Mapping[str, int]
    """Rows by bin."""


class _Decided(msgspec.Struct, frozen=True):
    """Decisions of all rows: how often each was taken, and the first rows' own."""

    kind: Decides
    counts: Mapping[str, int]
    first: tuple[str, ...]
    possible: int
    """How many different ones there can be; 0 where that is not known."""


def summary(outputs: Sequence[OutputTensor], labels: tuple[str, ...]) -> Summary:
    """Sum up *outputs* of a version whose classes are called *labels*, index by index."""
    nonfinite = not all(tensors.is_finite(output.array, output.datatype) for output in outputs)
    decided = _decided(outputs, labels)
    if decided is None:
        return Summary(nonfinite, "", (), value_bins(outputs[0]) if outputs else {})
    rows = sum(decided.counts.values())
    decisions = decided.first if rows <= MAX_DECISIONS else ()
    return Summary(nonfinite, decided.kind, decisions, class_bins(decided.counts, decided.possible))


def class_bins(counts: Mapping[str, int], possible: int) -> Mapping[str, int]:
    """Return *counts* by class as counts by bin; *possible* is the number of classes, 0 if unknown."""
    if possible <= MAX_CLASSES:
        return counts
    bins: Counter[str] = Counter()
    for name, count in counts.items():
        bins[name if name == NAN else f"~{zlib.crc32(name.encode()) % MAX_CLASSES}"] += count
    return bins


def value_bins(output: OutputTensor) -> Mapping[str, int]:
    """Return the rows of *output* by bin of their mean; nothing for texts and for rows without elements."""
    array = output.array
    if output.datatype == "BYTES" or array.size == 0:
        return {}
    by_row = array.reshape(array.shape[0] if array.ndim else 1, -1)
    elements = by_row.shape[1]
    return Counter([value_bin(total / elements) for total in _sums(by_row)])


def value_bin(mean: float) -> str:
    """Return the bin of a row whose elements' mean is *mean*."""
    if mean == 0:
        return "0"
    if math.isnan(mean):
        return NAN
    exponent = MAX_EXPONENT if math.isinf(mean) else math.frexp(mean)[1] - 1
    return f"{'+' if mean > 0 else '-'}2^{max(-MAX_EXPONENT, min(exponent, MAX_EXPONENT))}"


def count_bins(bins: Counter[str], new: Mapping[str, int]) -> None:
    """Add *new* to *bins*, of which there are at most MAX_BINS and OTHER: a label may be anything."""
    for name, count in new.items():
        bins[name if name in bins or len(bins) < MAX_BINS else OTHER] += count


def _sums(by_row: Array) -> list[float]:
    """Return the sum of each row; numpy takes longer to begin than Python does for few elements."""
    if by_row.size <= FEW:
        return [float(sum(row)) for row in by_row.tolist()]
    with np.errstate(invalid="ignore", over="ignore"):  # of infinities
        sums: list[float] = np.add.reduce(by_row, axis=1, dtype=np.float64).tolist()
    return sums


def _decided(outputs: Sequence[OutputTensor], labels: tuple[str, ...]) -> _Decided | None:
    scores = next((output for output in outputs if _is_scores(output, labels)), None)
    possible = max(len(labels), 0 if scores is None else scores.array.shape[-1])
    label = next((output for output in outputs if _is_label(output)), None)
    if label is not None:
        names = [item[: 4 * MAX_NAME_CHARS].decode(errors="replace") for item in label.array.tolist()]
        return _named("class", names, possible)
    if scores is None:
        return None
    if scores.array.ndim == 3:
        return _likeliest("token", scores.array[:, -1], str, possible)
    return _likeliest("class", scores.array, lambda index: _class_name(index, labels), possible)


def _is_label(output: OutputTensor) -> bool:
    return output.name == LABEL and output.datatype == "BYTES" and output.array.ndim == 1


def _is_scores(output: OutputTensor, labels: tuple[str, ...]) -> bool:
    shape = output.array.shape
    if output.datatype not in FLOATS or len(shape) not in (2, 3) or shape[-1] < 2 or 0 in shape:
        return False
    if len(shape) == 3:
        return output.name == LOGITS
    return output.name in SCORES or shape[-1] == len(labels)


def _class_name(index: int, labels: tuple[str, ...]) -> str:
    return labels[index] if index < len(labels) else str(index)


def _likeliest(kind: Decides, scores: Array, name: Callable[[int], str], possible: int) -> _Decided:
    """Return the largest columns of *scores*, shape (rows, columns); NAN for rows that hold NaN."""
    best, largest = scores.argmax(axis=-1).tolist(), scores.max(axis=-1).tolist()
    names = [NAN if value != value else name(index) for index, value in zip(best, largest, strict=True)]
    return _named(kind, names, possible)


def _named(kind: Decides, names: Iterable[str], possible: int) -> _Decided:
    short = [name[:MAX_NAME_CHARS] for name in names]
    return _Decided(kind, Counter(short), tuple(short[:MAX_DECISIONS]), possible)
