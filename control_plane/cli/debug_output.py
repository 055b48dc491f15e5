"""Debugger runs as the command line shows them to people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from control_plane.cli.client import Json
from control_plane.cli.output import Output

COLUMNS: Final = ("type", "output", "dtype", "min", "max", "mean", "std", "zeros", "NaN", "Inf")


def run(out: Output, found: Json, last: int | None = None) -> None:
    """A run: stages and layers of every side, and where they come apart. last: last layer that is shown."""
    view = found["view"]
    out.line(f"run {view['id']} of {view['a']}" + (f" against {view['b']}" if view["b"] else ""))
    for edit in view["edits"]:
        out.line(f"  edited: {_edit(edit)}")
    for side in found["sides"]:
        _side(out, side, found["comparison"] if side["side"] == "a" else None, last)
    sentence = found["comparison"]["sentence"] if found["comparison"] else ""
    if view["summary"]:
        out.line(view["summary"])
    if not view["summary"].startswith(sentence):
        out.line(sentence)
    if found["served"]:
        out.line(found["served"]["sentence"])


def stopped(found: Json, condition: str, place: int | None) -> str:
    """Where a breakpoint stopped."""
    if place is None:
        return f"no point meets {condition}"
    return f"{condition} is first met at {found['sides'][0]['run']['points'][place]['id']}"


def _side(out: Output, side: Json, comparison: Json | None, last: int | None) -> None:
    out.line()
    out.line(f"{side['side'].upper()}: {side['ref']}")
    seen = side["run"]
    if seen is None:
        out.line(f"  {side['problem']['message'] if side['problem'] else 'not inspected'}")
        return
    _table(out, ("stage", "state", "tensor", *COLUMNS[1:]), _stages(seen["stages"]))
    for stage in seen["stages"]:
        if stage["failure"]:
            failure = stage["failure"]
            where = ", ".join(filter(None, (failure["module"], failure["place"])))
            out.line(f"  {stage['name']} failed: {failure['type']}: {failure['message']} ({where})")
    if seen["note"]:
        out.line(f"  {seen['note']}")
    pairs = {pair["index_a"]: pair for pair in comparison["pairs"]} if comparison else {}
    beside = ("max |A-B|", "cosine", "SQNR") if comparison else ()
    points = seen["points"] if last is None else seen["points"][: last + 1]
    if points:
        out.line()
        columns = ("#", "layer", *COLUMNS, *beside)
        _table(out, columns, _points(points, pairs, compared=bool(comparison)))


def _table(out: Output, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table without the columns that nothing is in: terminals are narrow."""
    cells = [(*row, *[""] * (len(columns) - len(row))) for row in rows]
    filled = [place for place in range(len(columns)) if any(row[place] for row in cells)]
    out.table(
        [columns[place] for place in filled], [[row[place] for place in filled] for row in cells], empty=""
    )


def _stages(stages: Sequence[Json]) -> Iterable[tuple[str, ...]]:
    for stage in stages:
        head = (stage["name"], stage["state"].replace("_", " "))
        if not stage["tensors"]:
            yield head
        for tensor in stage["tensors"]:
            yield (*head, tensor["name"], *_tensor(tensor))


def _points(points: Sequence[Json], pairs: dict[int, Json], *, compared: bool) -> Iterable[tuple[str, ...]]:
    for place, point in enumerate(points):
        name = point["id"] + (" (edited)" if point["edited"] else "")
        head = (str(place), name, point["kind"])
        if not point["outputs"]:
            yield (*head, point["not_captured"])
        for at, tensor in enumerate(point["outputs"]):
            beside = _pair(pairs.get(place)) if compared and at == 0 else ()
            yield (*head, *_tensor(tensor), *beside)


def _tensor(tensor: Json) -> tuple[str, ...]:
    zeros = f"{tensor['zeros'] / tensor['elements']:.0%}" if tensor["elements"] else ""
    figures = (number(tensor[each]) for each in ("low", "high", "mean", "std"))
    counts = (str(tensor["nan"] or ""), str(tensor["inf"] or ""))
    return (str(tensor["shape"]), tensor["datatype"], *figures, zeros, *counts)


def _pair(pair: Json | None) -> tuple[str, ...]:
    if pair is None:
        return ()
    if pair["problem"]:
        return (pair["problem"].partition(":")[0],)
    sqnr = f"{pair['sqnr_db']:.1f} dB" if pair["sqnr_db"] is not None else "equal" if pair["equal"] else ""
    cosine = f"{pair['cosine']:.6f}" if pair["cosine"] is not None else ""
    return (number(pair["max_abs"]), cosine, sqnr)


def number(value: float | None) -> str:
    """Four significant digits."""
    return "" if value is None else f"{value:.4g}"


def _edit(edit: Json) -> str:
    places = ", ".join("*" if each is None else str(each) for each in edit["index"])
    return (
        f"{edit['point']}[{edit['tensor']}]"
        + (f"[{places}]" if places else "")
        + f" = {float(edit['value']):g}"
    )
