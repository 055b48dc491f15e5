"""Two versions side by side, as rows of tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from control_plane.domain.comparison import Comparison, Difference, TensorFacts, TensorPair, Weights
from control_plane.ui.viewmodels import quantities

MOST_TENSORS: Final = 2000
_WORDS: Final = {
    "same": "same",
    "changed": "values differ",
    "dtype": "type differs",
    "shape": "shape differs",
    "only_a": "only in {a}",
    "only_b": "only in {b}",
}
_LABELS: Final = {
    "size_bytes": "Size", "created_at": "Created", "created_by": "By", "gate_version": "Gate version",
    "decision": "Gate", "digest": "Digest",
}  # fmt: skip


def metadata_rows(found: Comparison, zone: str | None, *, everything: bool) -> list[dict[str, str]]:
    """Metadata of both; without *everything* only what differs."""
    return [
        {
            "": _label(each.name),
            found.a: _value(each.name, each.a, zone),
            found.b: _value(each.name, each.b, zone),
        }
        for each in found.metadata
        if everything or not each.same
    ]


def change_rows(found: Comparison, changes: Iterable[Difference]) -> list[dict[str, str]]:
    """Changed values of one JSON file, by dotted path."""
    return [{"Key": each.name, found.a: _text(each.a), found.b: _text(each.b)} for each in changes]


def file_rows(found: Comparison) -> list[dict[str, str]]:
    """Files that are not the same in both."""
    return [
        {"File": each.name, found.a: _hash(each.a), found.b: _hash(each.b)}
        for each in found.files
        if not each.same
    ]


def tensor_rows(found: Comparison, *, everything: bool) -> list[dict[str, Any]]:
    """Tensors, those that differ most first; without *everything* only those that differ."""
    pairs = found.weights.compared.tensors if found.weights.compared else ()
    shown = sorted((each for each in pairs if everything or not each.same), key=_order)
    return [_tensor_row(found, each) for each in shown[:MOST_TENSORS]]


def summary(found: Comparison, weights: Weights) -> str:
    """How many tensors are the same and how the others differ, in one sentence."""
    counts = {word: count for word, count in weights.counts.items() if count}
    if set(counts) == {"same"}:
        return f"{quantities.count(counts['same'], 'tensor')}, bit for bit the same."
    parts = [f"{count} {_words(found, word)}" for word, count in counts.items()]
    largest = "" if weights.max_difference is None else f"; largest |Δ| {weights.max_difference:.4g}"
    return f"{quantities.count(sum(counts.values()), 'tensor')}: {', '.join(parts)}{largest}."


def _words(found: Comparison, verdict: str) -> str:
    return _WORDS[verdict].format(a=found.a, b=found.b)


def _order(pair: TensorPair) -> tuple[int, float, str]:
    missing = pair.verdict in ("only_a", "only_b", "shape")
    return (0 if missing else 1, -(pair.max_difference or 0.0), pair.name)


def _tensor_row(found: Comparison, pair: TensorPair) -> dict[str, Any]:
    return {
        "Tensor": pair.name,
        "Relation": _words(found, pair.verdict),
        f"Type, shape in {found.a}": _kind(pair.a),
        f"Type, shape in {found.b}": _kind(pair.b),
        f"Norm in {found.a}": pair.a.norm if pair.a else None,
        f"Norm in {found.b}": pair.b.norm if pair.b else None,
        "max |Δ|": pair.max_difference,
        "NaN or Inf": _odd(pair),
    }


def _kind(facts: TensorFacts | None) -> str:
    return f"{facts.dtype} {list(facts.shape)}" if facts else ""


def _odd(pair: TensorPair) -> int:
    return sum(side.nonfinite for side in (pair.a, pair.b) if side)


def _label(name: str) -> str:
    return _LABELS.get(name, name.replace("_", " ").capitalize() if "." not in name else name)


def _value(name: str, value: Any, zone: str | None) -> str:
    if value is None:
        return quantities.NOTHING
    if name == "size_bytes":
        return quantities.size(value)
    if name == "created_at":
        return quantities.clock(value, zone)
    return ", ".join(value) if name in ("inputs", "outputs") else _text(value)


def _text(value: Any) -> str:
    return quantities.NOTHING if value is None else str(value)


def _hash(sha256: str | None) -> str:
    return sha256[:12] if sha256 else quantities.NOTHING
