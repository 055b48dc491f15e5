"""Two runs side by side: figures of every pair of tensors, from what both have kept."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from control_plane.debugging import aligning, kept, summary
from control_plane.debugging.aligning import Match
from control_plane.debugging.kept import Array, NotKeptError
from control_plane.domain import divergence
from control_plane.domain.divergence import Comparison, Pair
from serving_agent.contract.inspection import InspectedRun, Point, TensorSummary

CHUNK: Final = 1024**2
"""Elements that are looked at together: memory stays small whatever the tensors are."""
HIGHEST_DB: Final = 400.0
LARGE: Final = 1e100
"""Numbers beyond it are scaled down first: their squares would overflow."""

Floats = npt.NDArray[np.float64]
Operators = Mapping[str, str]
"""Module → its operators in order, as one text."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """One side: what was seen, and the folder that holds its values."""

    run: InspectedRun
    folder: Path


@dataclass(slots=True)
class Figures:
    """What two tensors of one shape have in common."""

    equal: bool = True
    one_sided: bool = False
    max_abs: float | None = None
    mean_abs: float | None = None
    cosine: float | None = None
    sqnr_db: float | None = None


def compare(a: Inspected, b: Inspected, beat: Callable[[], None] = lambda: None) -> Comparison:
    """All pairs of A and B, and where they come apart. *beat* is called before each, and may raise."""
    matches = aligning.align(a.run, b.run)
    inside = _operators(a.run), _operators(b.run)
    measured: list[Pair] = []
    for match in matches:
        beat()
        measured += _pairs(a, b, match, inside)
    pairs = tuple(measured)
    stages = tuple(_stages(a, b))
    first, found = divergence.diverge(pairs)
    matched_a, matched_b = {match.a for match in matches}, {match.b for match in matches}
    return Comparison(
        pairs=pairs,
        stages=stages,
        only_a=tuple(each.id for at, each in enumerate(a.run.points) if at not in matched_a),
        only_b=tuple(each.id for at, each in enumerate(b.run.points) if at not in matched_b),
        first_difference=first,
        divergence=found,
        sentence=summary.compared(a.run, b.run, divergence.told(pairs, first, found, stages)),
    )


def figures(a: Array, b: Array, scale: float = 1.0) -> Figures:
    """Figures of two arrays of one shape; *scale* is what both are divided by while they are summed up."""
    found = Figures()
    count, largest = 0, 0.0
    sums = dict.fromkeys(("aa", "bb", "ab", "dd", "d"), 0.0)
    for one, other in _chunks(a, b):
        finite = np.isfinite(one) & np.isfinite(other)
        same = (one == other) | (np.isnan(one) & np.isnan(other))
        found.equal = found.equal and bool(np.all(same))
        found.one_sided = found.one_sided or bool(np.any(~same & ~finite))
        one, other = one[finite] / scale, other[finite] / scale
        if not one.size:
            continue
        apart = np.abs(one - other)
        count, largest = count + one.size, max(largest, float(apart.max()))
        for name, value in (
            ("aa", one @ one), ("bb", other @ other), ("ab", one @ other), ("dd", apart @ apart),
            ("d", apart.sum()),
        ):  # fmt: skip
            sums[name] += float(value)
    if count:
        found.max_abs, found.mean_abs = _finite(largest * scale), _finite(sums["d"] / count * scale)
        found.cosine = cosine(sums["aa"], sums["bb"], sums["ab"])
        found.sqnr_db = sqnr_db(sums["aa"], sums["dd"])
    return found


def sqnr_db(signal: float, noise: float) -> float | None:
    """Energy of a signal over that of its noise, in dB; None where either is nothing."""
    if signal <= 0 or noise <= 0:
        return None
    return max(-HIGHEST_DB, min(HIGHEST_DB, 10 * (math.log10(signal) - math.log10(noise))))


def cosine(one: float, other: float, both: float) -> float | None:
    """Cosine of two vectors by their own sums of squares and that of their products."""
    length = math.sqrt(one) * math.sqrt(other)
    return max(-1.0, min(1.0, both / length)) if length > 0 else None


def _pairs(a: Inspected, b: Inspected, match: Match, inside: tuple[Operators, Operators]) -> Iterator[Pair]:
    one, other = a.run.points[match.a], b.run.points[match.b]
    alike = a.run.level == b.run.level and _inside(one, inside[0]) == _inside(other, inside[1])
    for tensor, (ours, theirs) in enumerate(zip(one.outputs, other.outputs, strict=False)):
        same_kind = alike and ours.datatype == theirs.datatype
        yield Pair(
            name=one.module or one.id if match.by == "module" else one.id,
            module=one.module,
            a=one.id,
            b=other.id,
            index_a=match.a,
            index_b=match.b,
            tensor=tensor,
            matched_by=match.by,
            same_kind=same_kind,
            **_measured(a, b, ours, theirs),
        )


def _inside(point: Point, operators: Operators) -> str:
    """The point's kind or, where it is in a module of a graph, the operators of that."""
    return operators.get(point.module, point.kind)


def _operators(run: InspectedRun) -> Operators:
    """Operators of every module of a graph."""
    found: dict[str, list[str]] = defaultdict(list)
    for point in run.points:
        if point.module and run.level != "module":
            found[point.module].append(point.kind)
    return {module: "\n".join(kinds) for module, kinds in found.items()}


def _stages(a: Inspected, b: Inspected) -> Iterator[Pair]:
    for one in a.run.stages:
        other = next((each for each in b.run.stages if each.name == one.name), None)
        theirs = {tensor.name: tensor for tensor in other.tensors} if other is not None else {}
        for place, tensor in enumerate(one.tensors):
            if tensor.name in theirs:
                yield Pair(
                    name=f"{one.name}/{tensor.name}",
                    a=one.name,
                    b=one.name,
                    index_a=-1,
                    index_b=-1,
                    tensor=place,
                    matched_by="stage",
                    same_kind=tensor.datatype == theirs[tensor.name].datatype,
                    **_measured(a, b, tensor, theirs[tensor.name]),
                )


def _measured(a: Inspected, b: Inspected, one: TensorSummary, other: TensorSummary) -> dict[str, Any]:
    """What the pair's fields say of two tensors."""
    if one.shape != other.shape:
        shapes = f"A has shape {list(one.shape)}, B has {list(other.shape)}"
        return {"problem": f"shapes differ: {shapes}", "shapes_differ": True}
    try:
        ours, theirs = kept.elements(a.folder, one), kept.elements(b.folder, other)
    except NotKeptError as error:
        return {"problem": str(error)}
    if object in (ours.dtype, theirs.dtype):
        same = ours.dtype == theirs.dtype and bool(np.all(ours == theirs))
        return {"problem": "" if same else "they are no numbers", "equal": same}
    if (ours.dtype.kind == "f") != (theirs.dtype.kind == "f"):
        types = f"A holds {one.datatype}, B holds {other.datatype}"
        return {"problem": f"they are on different scales: {types}"}
    found = figures(ours, theirs, _scale(one, other))
    return {name: getattr(found, name) for name in Figures.__dataclass_fields__}


def _scale(one: TensorSummary, other: TensorSummary) -> float:
    ends = [abs(end) for end in (one.low, one.high, other.low, other.high) if end is not None]
    largest = max(ends, default=0.0)
    return largest if largest > LARGE or 0 < largest < 1 / LARGE else 1.0


def _chunks(a: Array, b: Array) -> Iterator[tuple[Floats, Floats]]:
    one, other = a.reshape(-1), b.reshape(-1)
    for start in range(0, one.size, CHUNK):
        part = slice(start, start + CHUNK)
        yield one[part].astype(np.float64), other[part].astype(np.float64)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
