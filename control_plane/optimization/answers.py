"""Answers of the two sides to the same rows: kept in a file each, compared row by row.

Both decide alike on a row when what the row comes down to is the same (`serving_agent.answers`): its class,
or the likeliest last token. An embedding decides which other row is nearest to it, by cosine: what embeddings
are used for. Where rows decide nothing, every output must be within VALUE_TOLERANCE of its magnitude.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import numpy as np

from control_plane.domain import binomial
from control_plane.domain.optimization import Answers
from serving_agent.answers import summary
from serving_agent.contract.signature import Signature
from serving_agent.datatypes import Array
from serving_agent.handlers.embedding import EMBEDDING
from serving_agent.messages import OutputTensor

VALUE_TOLERANCE: Final = 0.02
ALPHA: Final = 0.05
KEPT_POSITIONS: Final = 16
"""Last positions of a language model's logits that are compared: a row of them may hold gigabytes."""
LOGITS: Final = "logits"
NONE: Final = ""
"""Decision of a row that decides nothing."""


@dataclass(slots=True)
class Given:
    """What one side answered, row by row."""

    raw: list[dict[str, Array]]
    """The model's own outputs, without the batch dimension."""
    decisions: list[str]

    @classmethod
    def empty(cls, rows: int) -> Self:
        """Nothing yet, for so many rows."""
        return cls([{} for _ in range(rows)], [NONE] * rows)

    def add(
        self,
        indexes: Sequence[int],
        raw: Mapping[str, Array],
        served: Mapping[str, Array],
        signature: Signature,
        labels: tuple[str, ...],
    ) -> None:
        """Keep the answers to the rows at *indexes*: *raw* of the model, *served* as clients get them."""
        types = {spec.name: spec.datatype for spec in signature.outputs}
        outputs = [OutputTensor(name, types[name], array) for name, array in served.items() if name in types]
        decided = summary(outputs, labels).decisions
        for at, index in enumerate(indexes):
            self.raw[index] = {name: _kept(name, array[at]) for name, array in raw.items()}
            self.decisions[index] = decided[at] if len(decided) == len(indexes) else NONE


def _kept(name: str, values: Array) -> Array:
    return values[-KEPT_POSITIONS:] if name == LOGITS and values.ndim == 2 else values


def write(given: Given, path: Path) -> None:
    """Write *given* as `.npz`: one array `ROW/NAME` an output, and the decisions as JSON."""
    arrays: dict[str, Any] = {
        f"{index}/{name}": array for index, row in enumerate(given.raw) for name, array in row.items()
    }
    decisions = np.frombuffer(msgspec.json.encode(given.decisions), dtype=np.uint8)
    with path.open("wb") as file:
        np.savez(file, decisions=decisions, **arrays)


def read(path: Path) -> Given:
    """Read what `write` wrote."""
    with np.load(path, allow_pickle=False) as held:
        decisions = msgspec.json.decode(held["decisions"].tobytes(), type=list[str])
        given = Given.empty(len(decisions))
        given.decisions = decisions
        for key in held.files:
            index, _, name = key.partition("/")
            if name:
                given.raw[int(index)][name] = held[key]
    return given


def compare(parent: Given, variant: Given, right: Sequence[str | None]) -> Answers:
    """Compare two sides; *right* holds each row's right class, None where it is not known.

    Rows that the parent does not answer finitely say nothing and are left out.
    """
    rows = [index for index, row in enumerate(parent.raw) if _is_finite(row)]
    broken = sum(not _is_finite(variant.raw[index]) for index in rows)
    ours, theirs = _decisions(parent, rows), _decisions(variant, rows)
    agreed = sum(
        _agree(parent.raw[index], variant.raw[index], ours[at], theirs[at]) for at, index in enumerate(rows)
    )
    labelled = [(at, right[index]) for at, index in enumerate(rows) if right[index] is not None and ours[at]]
    drift = _Drift()
    for index in rows:
        drift.add(parent.raw[index], variant.raw[index])
    return Answers(
        rows=len(rows),
        agreed=agreed,
        agreement_bound=binomial.lower(agreed, len(rows), ALPHA) if rows else 0.0,
        labelled=len(labelled),
        parent_right=sum(ours[at] == label for at, label in labelled),
        variant_right=sum(theirs[at] == label for at, label in labelled),
        broken=broken,
        **drift.figures(),
    )


def _is_finite(row: Mapping[str, Array]) -> bool:
    return bool(row) and all(array.dtype.kind != "f" or np.isfinite(array).all() for array in row.values())


def _decisions(given: Given, rows: Sequence[int]) -> list[str]:
    """What each of *rows* comes down to; for embeddings the nearest other one of them."""
    if len(rows) > 1 and all(set(given.raw[index]) == {EMBEDDING} for index in rows):
        return _nearest(np.stack([given.raw[index][EMBEDDING] for index in rows]).astype(np.float64))
    return [given.decisions[index] for index in rows]


def _nearest(vectors: Array) -> list[str]:
    """Index of the nearest other vector by cosine, for each of *vectors*, shape (rows, width)."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1.0)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return [str(index) for index in cosines.argmax(axis=1).tolist()]


def _agree(ours: Mapping[str, Array], theirs: Mapping[str, Array], our_word: str, their_word: str) -> bool:
    if not _is_finite(theirs):
        return False
    if our_word:
        return our_word == their_word
    return all(name in theirs and _near(array, theirs[name]) for name, array in ours.items())


def _near(ours: Array, theirs: Array) -> bool:
    if ours.shape != theirs.shape:
        return False
    if ours.dtype.kind != "f":
        return bool((ours == theirs).all())
    scale = float(np.abs(ours).max(initial=0.0))
    return float(np.abs(ours - theirs).max(initial=0.0)) <= VALUE_TOLERANCE * scale


class _Drift:
    """How far floating-point outputs moved, over all rows that both answer finitely."""

    def __init__(self) -> None:
        self._max = self._sum = 0.0
        self._elements = 0
        self._cosines: list[float] = []
        self._kl: list[float] = []

    def add(self, ours: Mapping[str, Array], theirs: Mapping[str, Array]) -> None:
        """Count one row."""
        if not _is_finite(theirs):
            return
        for name, array in ours.items():
            other = theirs.get(name)
            if array.dtype.kind == "f" and other is not None and other.shape == array.shape:
                self._count(array.astype(np.float64), other.astype(np.float64))
                if name == LOGITS:
                    self._kl.append(kl_divergence(array, other))

    def _count(self, ours: Array, theirs: Array) -> None:
        error = np.abs(ours - theirs)
        self._max = max(self._max, float(error.max(initial=0.0)))
        self._sum += float(error.sum())
        self._elements += error.size
        lengths = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
        if lengths > 0:
            self._cosines.append(float(ours.ravel() @ theirs.ravel()) / lengths)

    def figures(self) -> dict[str, Any]:
        """The fields of `Answers` that tell of it."""
        return {
            "max_error": self._max,
            "mean_error": self._sum / self._elements if self._elements else 0.0,
            "min_cosine": min(self._cosines, default=1.0),
            "mean_cosine": float(np.mean(self._cosines)) if self._cosines else 1.0,
            "kl": float(np.mean(self._kl)) if self._kl else None,
        }


def kl_divergence(ours: Array, theirs: Array) -> float:
    """Mean of KL(softmax(ours) ‖ softmax(theirs)) over all places, in nats; classes on the last axis."""
    p, q = _log_softmax(ours.astype(np.float64)), _log_softmax(theirs.astype(np.float64))
    return max(0.0, float((np.exp(p) * (p - q)).sum(axis=-1).mean()))


def _log_softmax(logits: Array) -> Array:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    made: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return made
