"""Drawings of a report as inline SVG. Pure; all text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from control_plane.domain.divergence import EQUAL_DB, Comparison, Pair, decibels
from serving_agent.contract.inspection import Histogram

WIDTH: Final = 960
HEIGHT: Final = 240
LEFT: Final = 48
BOTTOM: Final = 24
LOWEST_DB: Final = -20.0
"""Below it a point stands on the floor."""
STEP_DB: Final = 20
BAR_WIDTH: Final = 2
BAR_HEIGHT: Final = 18


def sqnr_line(comparison: Comparison) -> str:
    """SQNR by layer in A's order, the divergence marked; empty where there is no layer to draw.

    Equal layers stand at the top, broken ones on the floor.
    """
    drawn = [(place, pair) for place, pair in enumerate(comparison.pairs) if _height_db(pair) is not None]
    if not drawn:
        return ""
    step = (WIDTH - LEFT - 8) / max(1, len(drawn) - 1)
    points = [(LEFT + step * at, _y(_height_db(pair) or 0.0)) for at, (_, pair) in enumerate(drawn)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    marked = comparison.divergence.pair if comparison.divergence is not None else None
    dots = "".join(
        _dot(x, y, pair, marked=place == marked) for (x, y), (place, pair) in zip(points, drawn, strict=True)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="SQNR by layer">{_grid()}'
        f'<polyline class="line" points="{path}"/>{dots}</svg>'
    )


def bars(histogram: Histogram | None) -> str:
    """A histogram as small bars; empty without one."""
    if histogram is None or not any(histogram.counts):
        return ""
    most = max(histogram.counts)
    drawn = "".join(
        f'<rect x="{at * BAR_WIDTH}" y="{BAR_HEIGHT - height}" width="{BAR_WIDTH}" height="{height}"/>'
        for at, count in enumerate(histogram.counts)
        if (height := _bar(count, most))
    )
    width = BAR_WIDTH * len(histogram.counts)
    label = f"{histogram.low:.4g} to {histogram.high:.4g}"
    return (
        f'<svg class="bars" viewBox="0 0 {width} {BAR_HEIGHT}" width="{width}" height="{BAR_HEIGHT}" '
        f'role="img" aria-label="{escape(label)}"><title>{escape(label)}</title>{drawn}</svg>'
    )


def _height_db(pair: Pair) -> float | None:
    """Where the pair stands; None where it cannot be drawn."""
    if pair.shapes_differ or pair.one_sided:
        return LOWEST_DB
    if pair.sqnr_db is not None:
        return pair.sqnr_db
    return EQUAL_DB if pair.equal else None


def _grid() -> str:
    lines: Sequence[int] = range(int(LOWEST_DB), int(EQUAL_DB) + 1, STEP_DB)
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{_y(db):.1f}" y2="{_y(db):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{_y(db) + 4:.1f}" text-anchor="end">{_label(db)}</text>'
        for db in lines
    )


def _label(db: int) -> str:
    return "equal" if db == EQUAL_DB else f"{db} dB"


def _dot(x: float, y: float, pair: Pair, *, marked: bool) -> str:
    figure = decibels(pair.sqnr_db) if pair.sqnr_db is not None else pair.problem or "equal"
    kind = "dot diverges" if marked else "dot"
    return (
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{6 if marked else 3}">'
        f"<title>{escape(pair.name)}: {escape(figure)}</title></circle>"
    )


def _y(db: float) -> float:
    inside = min(EQUAL_DB, max(LOWEST_DB, db))
    share = (inside - LOWEST_DB) / (EQUAL_DB - LOWEST_DB)
    return 8 + (HEIGHT - BOTTOM - 8) * (1 - share)


def _bar(count: int, most: int) -> int:
    """Height of a bar in pixels: whatever is there is seen."""
    return max(1, round(BAR_HEIGHT * count / most)) if count else 0
