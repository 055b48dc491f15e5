"""Figures of the debugger for `components.figure`: traces and layout, colours by their place in the palette.

Every figure has `alt`, which says in words what it shows. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from control_plane.domain.divergence import EQUAL_DB, Comparison, Pair
from control_plane.domain.token_scores import TokenScores
from control_plane.ui.viewmodels.debugger_tensors import number, shape
from control_plane.ui.viewmodels.debugger_values import Array, Window, finite_or_none
from serving_agent.contract.inspection import Histogram

Drawing = dict[str, Any]
A, B, MARK = "@0", "@1", "@7"
"""Colours of the two sides and of what is marked."""
ONE_WAY: Final = ((0, "@background"), (1, "@positive"))
TWO_WAYS: Final = ((0, "@negative"), (0.5, "@background"), (1, "@positive"))
NUMBERS_UP_TO: Final = 12
"""Cells of a heat map hold their numbers while it has no more rows and columns."""
CELL_PX: Final = 26
HIGHEST_PX, LEAST_PX = 420, 132
TICKS: Final = 12
"""Most layers that are named under an axis; half as many where names are long."""
NAMES: Final = 24
"""Characters of a layer's name under an axis."""


def _drawing(view: str, alt: str, height: int, traces: list[Any], layout: Drawing, note: str = "") -> Drawing:
    return {"view": view, "alt": alt, "height": height, "traces": traces, "layout": layout, "note": note}


# --- one tensor ---


def histogram(sides: Sequence[tuple[str, Histogram]], view: str) -> Drawing:
    """Histograms over each other, one a side, as shares of the elements."""
    traces = [_steps(title, found, colour) for (title, found), colour in zip(sides, (A, B), strict=False)]
    said = "; ".join(f"{title} from {number(found.low)} to {number(found.high)}" for title, found in sides)
    return _drawing(
        view,
        f"Histogram of the finite elements: {said}",
        190,
        traces,
        {
            "xaxis": {"title": {"text": "value", "standoff": 6}, "nticks": 6},
            "yaxis": {
                "title": {"text": "share of elements, %", "standoff": 6},
                "rangemode": "tozero",
                "nticks": 4,
            },
            "hovermode": "x",
            "showlegend": len(traces) > 1,
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        },
    )


def _steps(title: str, found: Histogram, colour: str) -> Drawing:
    """An outline: two lie over each other without hiding each other."""
    edges = np.linspace(found.low, found.high, len(found.counts) + 1)
    total = sum(found.counts) or 1
    shares = [100 * each / total for each in found.counts]
    return {
        "type": "scatter",
        "mode": "lines",
        "name": title,
        "x": [float(edge) for edge in edges],
        "y": [*shares, shares[-1]],
        "line": {"shape": "hv", "width": 1.5, "color": colour, "dash": "solid" if colour == A else "dot"},
        "fill": "tozeroy" if colour == A else "none",
        "hovertemplate": "%{y:.3g} %<extra>" + _plain(title) + " at %{x:.4g}</extra>",
    }


def heat_map(
    values: Array, piece: Window, view: str, *, tokens: Sequence[str] = (), attention: bool = False
) -> Drawing:
    """The window's elements as colours; blue is positive, orange negative, empty what is no finite number.

    tokens: names of rows and columns, for attention.
    """
    rows, columns = values.shape
    cells = finite_or_none(values)
    known = [value for line in cells for value in line if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    top = max(abs(low), abs(high)) or 1.0
    names = [_names(tokens, at, size) for at, size in ((piece.row, rows), (piece.column, columns))]
    small = max(rows, columns) <= NUMBERS_UP_TO
    place = [*map(str, piece.fixed), "%{y}", "%{x}"][-max(1, len(piece.shape)) :]
    trace = {
        "type": "heatmap",
        "z": cells,
        "x0": piece.column,
        "y0": piece.row,
        "zmin": -top if low < 0 else 0.0,
        "zmax": top,
        "colorscale": TWO_WAYS if low < 0 else ONE_WAY,
        "xgap": 1 if small else 0,
        "ygap": 1 if small else 0,
        "texttemplate": "%{z:.3g}" if small else "",
        "textfont": {"size": 10, "color": "@text"},
        "colorbar": {"thickness": 10, "len": 1, "outlinewidth": 0, "nticks": 4},
        "hovertemplate": f"[{', '.join(place)}] = %{{z:.6g}}<extra></extra>",
    }
    return _drawing(
        view,
        f"{rows} by {columns} elements of a tensor of {shape(piece.shape)}, "
        f"from {number(low)} to {number(high)}",
        _height(rows),
        [trace, *_not_finite(values, piece)],
        {
            "xaxis": _cells(names[1], piece.column),
            "yaxis": {**_cells(names[0], piece.row), "autorange": "reversed"},
        },
        "Rows look at columns; every row adds up to 1." if attention else "Click a cell to edit it.",
    )


def _height(rows: int) -> int:
    return int(min(HIGHEST_PX, max(LEAST_PX, rows * CELL_PX + 60)))


def _names(tokens: Sequence[str], at: int, size: int) -> list[str]:
    found = list(tokens[at : at + size])
    return [
        f"{at + place} {_plain(found[place])}" if place < len(found) else str(at + place)
        for place in range(size)
    ]


def _cells(names: list[str], first: int) -> Drawing:
    step = max(1, math.ceil(len(names) / 16))
    places = list(range(0, len(names), step))
    return {
        "tickvals": [first + place for place in places],
        "ticktext": [names[place] for place in places],
        "showgrid": False,
        "ticks": "",
        "zeroline": False,
    }


def _not_finite(values: Array, piece: Window) -> list[Drawing]:
    """Crosses on cells that have no colour."""
    if values.dtype.kind != "f":
        return []
    places = np.argwhere(~np.isfinite(values))
    if not len(places):
        return []
    words = [str(values[row, column]) for row, column in places]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [piece.column + int(column) for _, column in places],
            "y": [piece.row + int(row) for row, _ in places],
            "customdata": [[int(row), int(column)] for row, column in places],
            "marker": {"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": MARK}},
            "hovertext": words,
            "hovertemplate": "%{hovertext}<extra></extra>",
        }
    ]


# --- two versions ---


def sqnr_line(comparison: Comparison, side: str, view: str, here: int | None) -> Drawing:
    """SQNR by layer in A's order; a click tells the layer. here: place in *side* of the chosen point."""
    known = [pair for pair in comparison.pairs if pair.tensor == 0 and not pair.problem]
    x = list(range(len(known)))
    y = [_plotted(pair) for pair in known]
    ids = [pair.a if side == "a" else pair.b for pair in known]
    traces: list[Drawing] = [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(known) <= 80 else "lines",
            "x": x,
            "y": y,
            "customdata": ids,
            "text": [_plain(each) for each in ids],
            "line": {"color": A, "width": 1.6},
            "marker": {"size": 5, "color": A},
            "hovertemplate": "%{text}<br>SQNR %{y:.1f} dB<extra></extra>",
        }
    ]
    places = {pair.index_a if side == "a" else pair.index_b: at for at, pair in enumerate(known)}
    marked = _marked(comparison, known)
    if marked is not None:
        traces.append(_point(marked, y[marked], ids[marked], "first divergence" if comparison.divergence else
                             "first difference", MARK, "diamond"))  # fmt: skip
    chosen = places.get(-1 if here is None else here)
    if chosen is not None:
        traces.append(_point(chosen, y[chosen], ids[chosen], "", "@text", "circle-open"))
    longest = max((len(_short(pair.name)) for pair in known), default=0)
    step = max(1, math.ceil(len(known) / (TICKS if longest <= NAMES // 2 else TICKS // 2)))
    return _drawing(
        view,
        f"SQNR by layer in decibels, {len(known)} layers. {comparison.sentence}.",
        250,
        traces,
        {
            "xaxis": {
                "tickvals": x[::step],
                "ticktext": [_plain(_short(pair.name)) for pair in known[::step]],
                "showgrid": False,
                "range": [-0.6, max(0.6, len(known) - 0.4)],
            },
            "yaxis": {
                "title": {"text": "SQNR, dB", "standoff": 6},
                "ticksuffix": " dB",
                "nticks": 6,
                "range": [min([0.0, *(each for each in y if each is not None)]) - 8, EQUAL_DB + 8],
            },
        },
        f"Higher is closer. Layers that are equal up to rounding are drawn at {EQUAL_DB:.0f} dB. "
        "Click a layer to open it.",
    )


def _plotted(pair: Pair) -> float | None:
    if pair.equal:
        return EQUAL_DB
    return None if pair.sqnr_db is None else round(min(EQUAL_DB, pair.sqnr_db), 2)


def _marked(comparison: Comparison, known: Sequence[Pair]) -> int | None:
    at = comparison.divergence.pair if comparison.divergence else comparison.first_difference
    if at is None:
        return None
    wanted = comparison.pairs[at]
    return next((place for place, pair in enumerate(known) if pair is wanted), None)


def _point(x: int, y: float | None, told: str, words: str, colour: str, symbol: str) -> Drawing:
    return {
        "type": "scatter",
        "mode": "markers+text" if words else "markers",
        "x": [x],
        "y": [y],
        "customdata": [told],
        "text": [words],
        "textposition": "top right",
        "cliponaxis": False,
        "marker": {"size": 12, "color": colour, "symbol": symbol, "line": {"width": 2, "color": colour}},
        "hoverinfo": "skip",
    }


def _short(name: str) -> str:
    return name if len(name) <= NAMES else f"…{name[1 - NAMES :]}"


def _plain(text: str) -> str:
    """Text in a label that Plotly reads as HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# --- language models ---


def logprob_line(scores: TokenScores, row: int, view: str, sides: Sequence[str], here: int | None) -> Drawing:
    """Log-probability of each token given those before it, one line a side; a click tells the position."""
    tokens = [score for score in scores.tokens if score.row == row]
    lines: list[Drawing] = []
    for title, colour, values in zip(
        sides, (A, B), ([t.logprob_a for t in tokens], [t.logprob_b for t in tokens]), strict=False
    ):
        lines.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": title,
                "x": [score.position for score in tokens],
                "y": values,
                "customdata": [score.position for score in tokens],
                "line": {"color": colour, "width": 1.5, "dash": "solid" if colour == A else "dot"},
                "marker": {"size": 6, "symbol": "circle" if colour == A else "diamond"},
                "hovertemplate": "%{y:.4g} nats<extra>" + _plain(title) + "</extra>",
            }
        )
    layout = _positions(tokens, here)
    layout["yaxis"] = {"title": {"text": "log-probability, nats", "standoff": 6}, "nticks": 5}
    layout |= {
        "showlegend": len(lines) > 1,
        "hovermode": "x",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    }
    return _drawing(
        view, f"Log-probability of {len(tokens)} tokens given those before each", 250, lines, layout
    )


def kl_bars(scores: TokenScores, row: int, view: str, here: int | None) -> Drawing:
    """KL(A‖B) of what could come after each position; a click tells the position."""
    tokens = [score for score in scores.tokens if score.row == row]
    bars = {
        "type": "bar",
        "x": [score.position for score in tokens],
        "y": [score.kl for score in tokens],
        "customdata": [score.position for score in tokens],
        "marker": {"color": A},
        "hovertemplate": "%{y:.4g} nats<extra></extra>",
    }
    layout = _positions(tokens, here)
    layout["yaxis"] = {"title": {"text": "KL(A‖B), nats", "standoff": 6}, "rangemode": "tozero", "nticks": 4}
    most = max(tokens, key=lambda score: score.kl or 0.0, default=None)
    said = f", largest after position {most.position} with {number(most.kl)} nats" if most else ""
    return _drawing(view, f"KL divergence of the next token by position{said}", 200, [bars], layout)


def _positions(tokens: Sequence[Any], here: int | None) -> Drawing:
    step = max(1, math.ceil(len(tokens) / 20))
    shown = tokens[::step]
    layout: Drawing = {
        "xaxis": {
            "title": {"text": "position", "standoff": 6},
            "tickvals": [score.position for score in shown],
            "ticktext": [f"{score.position}<br>{_plain(piece(score.piece, score.token))}" for score in shown],
            "tickangle": 0,
            "showgrid": False,
        }
    }
    if here is not None:
        line = {"color": "@text", "width": 1, "dash": "dash"}
        layout["shapes"] = [
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": here,
                "x1": here,
                "y0": 0,
                "y1": 1,
                "line": line,
            }
        ]
    return layout


def piece(text: str, token: int) -> str:
    """A token for people: its text with its blanks visible, or its id."""
    return text.replace("\n", "⏎").replace(" ", "␣") if text else f"#{token}"
