"""What two versions have in common and what differs: values that services return, and pure rules for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, get_args

import msgspec

MAX_CHANGES: Final = 500
"""Differences of one JSON file that are listed."""
MAX_VALUE_CHARS: Final = 300

WeightsState = Literal["ready", "missing", "running", "failed", "none"]
"""Of the comparison of weights: at hand, not made yet, being made, failed, or impossible."""
Verdict = Literal["same", "changed", "dtype", "shape", "only_a", "only_b"]
"""same: equal bytes of one type and shape. dtype: another element type, values compared all the same."""


class Difference(msgspec.Struct, frozen=True):
    """One thing both versions may have; None where one has not."""

    name: str
    a: Any
    b: Any

    @property
    def same(self) -> bool:
        """Whether both say the same."""
        return bool(self.a == self.b)


class TensorFacts(msgspec.Struct, frozen=True):
    """A tensor of one version."""

    dtype: str
    """As safetensors writes it: F32, BF16, F8_E4M3, ..."""
    shape: tuple[int, ...]
    norm: float | None
    """Euclidean norm of its finite elements, summed in float64; None where it was not read or overflows."""
    nonfinite: int = 0
    """Elements that are NaN or infinite."""


class TensorPair(msgspec.Struct, frozen=True):
    """A tensor by its name in both versions."""

    name: str
    a: TensorFacts | None
    b: TensorFacts | None
    same: bool
    """Whether type, shape and every byte are equal."""
    max_difference: float | None = None
    """Largest |a - b| over elements that are finite in both; None where the shapes differ."""
    nonfinite_differences: int = 0
    """Elements that are NaN or infinite in one and not the same in the other."""

    @property
    def verdict(self) -> Verdict:
        """How the two relate, in one word."""
        if self.a is None or self.b is None:
            return "only_a" if self.b is None else "only_b"
        if self.a.shape != self.b.shape:
            return "shape"
        if self.a.dtype != self.b.dtype:
            return "dtype"
        return "same" if self.same else "changed"


class WeightsComparison(msgspec.Struct, frozen=True):
    """All tensors of both versions, by name, and how they were read."""

    tensors: tuple[TensorPair, ...]
    read_bytes: int
    took_s: float

    def counts(self) -> dict[str, int]:
        """How many tensors there are of each verdict; none is left out."""
        found = dict.fromkeys(get_args(Verdict), 0)
        for tensor in self.tensors:
            found[tensor.verdict] += 1
        return found

    @property
    def max_difference(self) -> float | None:
        """The largest difference of any tensor; None where none could be compared."""
        known = [each.max_difference for each in self.tensors if each.max_difference is not None]
        return max(known, default=None)


class Weights(msgspec.Struct, frozen=True):
    """How far the comparison of weights is."""

    state: WeightsState
    sentence: str
    job_id: str | None = None
    compared: WeightsComparison | None = None
    counts: dict[str, int] = {}
    max_difference: float | None = None


class Comparison(msgspec.Struct, frozen=True):
    """Two versions side by side."""

    a: str
    """`model@N`."""
    b: str
    identical: bool
    """Whether both serve the same artefact."""
    metadata: tuple[Difference, ...]
    files: tuple[Difference, ...]
    """Files by path, with their sha256."""
    config: dict[str, tuple[Difference, ...]]
    """Changes of each JSON file that both or one have, by dotted path; equal values are left out."""
    weights: Weights


def json_changes(a: Any, b: Any) -> tuple[Difference, ...]:
    """What differs between two JSON values, by dotted path, sorted; at most MAX_CHANGES. None: not there.

    Objects are entered; lists are compared as a whole.
    """
    left, right = dict(_leaves(a, "")), dict(_leaves(b, ""))
    names = sorted(left.keys() | right.keys())
    changed = [name for name in names if _of(left, name) != _of(right, name)]
    return tuple(
        Difference(name, _short(left.get(name)), _short(right.get(name))) for name in changed[:MAX_CHANGES]
    )


def _of(leaves: Mapping[str, Any], name: str) -> tuple[bool, bool, Any]:
    """What is compared: a missing value is no null, and true is no 1."""
    value = leaves.get(name)
    return name in leaves, isinstance(value, bool), value


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif path:
        yield path, value


def _short(value: Any) -> Any:
    if isinstance(value, str | list | dict):
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        return text if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}…"
    return value
