"""Layers of a debugger run: rows of the table, steps through it, and what is marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from control_plane.domain.debugging import DebugRunDetail, Side, SideView
from control_plane.domain.divergence import Comparison, Pair
from control_plane.ui.viewmodels import debugger_tensors as tensors
from control_plane.ui.viewmodels import quantities
from control_plane.ui.viewmodels.badges import Badge
from serving_agent.contract.inspection import Histogram, InspectedRun, Point, TensorSummary

NAMED: Final = 60
"""Most layers without a counterpart that are named."""
_COLUMNS: Final = (
    ("place", "#", "num quiet", "Order in which they ran"),
    ("name", "layer", "", "Module path or node name"),
    ("kind", "kind", "quiet", "Class of the module, or operator"),
    ("output", "output", "mono", "Shape of the first output"),
    ("datatype", "dtype", "mono quiet", ""),
    ("seconds", "time", "num", "Time of the layer and of what it calls"),
    ("low", "min", "num", "Smallest finite element"),
    ("high", "max", "num", "Largest finite element"),
    ("mean", "mean", "num", ""),
    ("std", "std", "num", "Standard deviation"),
    ("zeros", "zeros", "num", "Share of elements that are zero"),
    ("nan", "NaN", "num", "Elements that are not a number"),
    ("inf", "Inf", "num", "Infinite elements"),
    ("hist", "histogram", "", "Finite elements, from the smallest to the largest"),
)
FIRST: Final = 6
"""Columns before those of the comparison: what is asked first."""
_COMPARED: Final = (
    ("max_abs", "max |A − B|", "num", "Largest difference of an element"),
    ("cosine", "cosine", "num", "Cosine of the two outputs as vectors"),
    ("sqnr", "SQNR", "num", "Signal to difference, in decibels: 6 dB more is half the difference"),
)


def side_of(detail: DebugRunDetail, side: str | None) -> SideView:
    """The side that is looked at; A where the address names none that is there."""
    return detail.b if side == "b" and detail.b is not None else detail.a


def place_of(run: InspectedRun, layer: str | None) -> int:
    """Place of the point that the address names; the first where it names none."""
    return next((place for place, point in enumerate(run.points) if point.id == layer), 0)


def pairs_of(comparison: Comparison | None, side: Side, *, tensor: int = 0) -> dict[int, Pair]:
    """Pairs of the output at *tensor*, by the place of their point in *side*."""
    if comparison is None:
        return {}
    return {
        pair.index_a if side == "a" else pair.index_b: pair
        for pair in comparison.pairs
        if pair.tensor == tensor
    }


def diverged_at(comparison: Comparison | None, side: Side) -> int | None:
    """Place in *side* of the point where the two diverge, or first differ where none stands out."""
    if comparison is None:
        return None
    pair = comparison.divergence.pair if comparison.divergence else comparison.first_difference
    if pair is None:
        return None
    found = comparison.pairs[pair]
    return found.index_a if side == "a" else found.index_b


def table(detail: DebugRunDetail, shown: SideView, run: InspectedRun) -> dict[str, Any]:
    """Columns and rows of the table component."""
    compared = _COMPARED if detail.comparison is not None else ()
    pairs = pairs_of(detail.comparison, shown.side)
    where = diverged_at(detail.comparison, shown.side)
    sudden = detail.comparison is not None and detail.comparison.divergence is not None
    return {
        "label": f"Layers of {shown.ref} in the order in which they ran",
        "columns": [
            {"key": key, "title": title, "look": look, "help": help_}
            for key, title, look, help_ in (*_COLUMNS[:FIRST], *compared, *_COLUMNS[FIRST:])
        ],
        "rows": [
            _row(place, point, pairs.get(place) if compared else None, _mark(place, where, sudden=sudden))
            for place, point in enumerate(run.points)
        ],
    }


def _mark(place: int, where: int | None, *, sudden: bool) -> list[dict[str, str]]:
    if place != where:
        return []
    if sudden:
        return [{"icon": "▲", "word": "diverges", "tone": "warn"}]
    return [{"icon": "△", "word": "first difference", "tone": "idle"}]


def _row(place: int, point: Point, pair: Pair | None, marks: list[dict[str, str]]) -> dict[str, Any]:
    tensor = point.outputs[0] if point.outputs else None
    many = len(point.outputs)
    figures = _figures(tensor, point.outputs)
    return {
        "id": point.id,
        "place": place + 1,
        "name": name(point),
        "depth": point.depth,
        "kind": point.kind,
        "output": (tensors.shape(tensor.shape) + (f" +{many - 1}" if many > 1 else "")) if tensor else "",
        "datatype": tensor.datatype if tensor else "",
        "seconds": seconds(point.seconds),
        **figures,
        **_differences(pair),
        "marks": [*_own_marks(point), *marks],
        "wrong": [key for key in ("nan", "inf") if figures[key] not in ("0", "")],
        "why": sentence(point),
    }


def _figures(tensor: TensorSummary | None, outputs: Sequence[TensorSummary]) -> dict[str, str]:
    if tensor is None:
        return dict.fromkeys(("low", "high", "mean", "std", "zeros", "nan", "inf", "hist", "histLabel"), "")
    said = tensors.row(tensor)
    return {
        "low": said.low,
        "high": said.high,
        "mean": said.mean,
        "std": said.std,
        "zeros": said.zeros,
        "nan": tensors.count(sum(each.nan for each in outputs)),
        "inf": tensors.count(sum(each.inf for each in outputs)),
        "hist": said.bars,
        "histLabel": said.bars_label,
    }


def _differences(pair: Pair | None) -> dict[str, str]:
    if pair is None:
        return {"max_abs": "", "cosine": "", "sqnr": ""}
    if pair.problem:
        word = "shapes differ" if pair.shapes_differ else "not kept"
        return {"max_abs": word, "cosine": "", "sqnr": ""}
    if pair.equal:
        return {"max_abs": "0", "cosine": tensors.number(pair.cosine), "sqnr": "equal"}
    return {
        "max_abs": tensors.number(pair.max_abs),
        "cosine": "" if pair.cosine is None else f"{pair.cosine:.6f}",
        "sqnr": decibels(pair.sqnr_db),
    }


def _own_marks(point: Point) -> list[dict[str, str]]:
    marks = []
    if point.edited:
        marks.append({"icon": "✎", "word": "edited", "tone": "busy"})
    if tensors.wrong(point.outputs):
        kinds = [
            word
            for word, there in (
                ("NaN", any(each.nan for each in point.outputs)),
                ("Inf", any(each.inf for each in point.outputs)),
            )
            if there
        ]
        marks.append({"icon": "✕", "word": " and ".join(kinds), "tone": "bad"})
    if point.not_captured:
        marks.append({"icon": "○", "word": "not captured", "tone": "idle"})
    return marks


def name(point: Point) -> str:
    """A point's name for people."""
    return point.id or "the network itself"


def sentence(point: Point) -> str:
    """Why a point has no outputs; "" where it has."""
    return tensors.stopped(point.not_captured)


def seconds(value: float | None) -> str:
    """A layer's time: "0.41 ms"; "–" where it was not timed by itself."""
    return quantities.NOTHING if value is None else quantities.duration_ms(value)


def decibels(value: float | None) -> str:
    """ "38.2 dB"; "–" where there is none."""
    return quantities.NOTHING if value is None else f"{value:.1f} dB".replace("-", "−", 1)


def facts(point: Point) -> tuple[tuple[str, str], ...]:
    """What a point is."""
    rows = [
        ("kind", point.kind),
        ("module", point.module if point.module != point.id else ""),
        ("source", point.source),
        ("time", seconds(point.seconds) if point.seconds is not None else ""),
    ]
    return tuple((label, value) for label, value in rows if value)


def badges(point: Point) -> tuple[Badge, ...]:
    """What is marked about a point."""
    return tuple(Badge(mark["icon"], mark["word"], mark["tone"]) for mark in _own_marks(point))  # type: ignore[arg-type]


def pair_facts(pair: Pair, side: Side) -> tuple[tuple[str, str], ...]:
    """How a point of *side* differs from its counterpart."""
    other = pair.b if side == "a" else pair.a
    by = {"module": "module path", "id": "name", "order": "order", "stage": "stage"}[pair.matched_by]
    if pair.problem:
        return (("compared with", f"{other}, matched by {by}"), ("difference", tensors.stopped(pair.problem)))
    said = _differences(pair)
    return (
        ("compared with", f"{other}, matched by {by}"),
        ("largest difference", said["max_abs"]),
        ("mean difference", "0" if pair.equal else tensors.number(pair.mean_abs)),
        ("cosine", said["cosine"] or quantities.NOTHING),
        ("SQNR", "equal" if pair.equal else said["sqnr"]),
    )


def labels(run: InspectedRun) -> Mapping[str, str]:
    """Points by id as entries of a list to jump to."""
    return {point.id: f"{place + 1} · {name(point)} · {point.kind}" for place, point in enumerate(run.points)}


def histograms(
    detail: DebugRunDetail, side: Side, place: int, at: int, tensor: TensorSummary
) -> list[tuple[str, Histogram]]:
    """The tensor's histogram, and that of its counterpart: A first, each with its version's name."""
    own = (points_title(detail, side), tensor.histogram)
    pair = pairs_of(detail.comparison, side, tensor=at).get(place)
    other: tuple[str, Histogram | None] = ("", None)
    beside: Side = "b" if side == "a" else "a"
    run = next((each.run for each in detail.sides if each.side == beside), None)
    if pair is not None and run is not None:
        point = run.points[pair.index_b if side == "a" else pair.index_a]
        if at < len(point.outputs):
            other = (points_title(detail, beside), point.outputs[at].histogram)
    ordered = (own, other) if side == "a" else (other, own)
    return [(title, found) for title, found in ordered if found is not None and any(found.counts)]


def points_title(detail: DebugRunDetail, side: Side) -> str:
    """A side for people: "A · digits@2"."""
    return f"{side.upper()} · {side_of(detail, side).ref}"


def stage_rows(pairs: Sequence[Pair]) -> list[dict[str, object]]:
    """How tensors of a stage differ between the two versions."""
    return [
        {
            "A against B": pair.name.partition("/")[2] or pair.name,
            "max |A − B|": tensors.stopped(pair.problem) if pair.problem else _differences(pair)["max_abs"],
            "cosine": _differences(pair)["cosine"],
            "SQNR": _differences(pair)["sqnr"],
        }
        for pair in pairs
    ]


def alone_words(comparison: Comparison) -> tuple[str, str] | None:
    """Layers without a counterpart: a heading and their names; None where each has one."""
    parts = [
        f"Only in {side}: {', '.join(ids[:NAMED])}{' …' if len(ids) > NAMED else ''}."
        for side, ids in (("A", comparison.only_a), ("B", comparison.only_b))
        if ids
    ]
    if not parts:
        return None
    there = quantities.count(len(comparison.only_a), "layer")
    return f"Without a counterpart: {there} of A, {len(comparison.only_b)} of B", " ".join(parts)
