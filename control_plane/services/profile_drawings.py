"""Curves of a report as inline SVG, for its HTML page. Pure; all text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from control_plane.domain.profile_summary import duration
from serving_agent.contract.profile import Report

WIDTH: Final = 960
HEIGHT: Final = 220
LEFT: Final = 90
RIGHT: Final = 90
TOP: Final = 18
BOTTOM: Final = 34
_KIB: Final = 1024

Point = tuple[float, float]


def memory(report: Report) -> str:
    """Memory over time as a staircase; empty without a figure."""
    if not report.memory:
        return ""
    highest = max(held for _, held in report.memory)
    last = max(at for at, _ in report.memory)
    placed = [(_x(at, last), _y(held, highest)) for at, held in report.memory]
    stairs = [placed[0]]
    for point in placed[1:]:
        stairs += [(point[0], stairs[-1][1]), point]
    return _drawing(
        "Memory over time",
        f"{highest / _KIB:,.0f} KiB",
        _line(stairs, "#2563eb"),
        _label(LEFT, "0", "start"),
        _label(WIDTH - RIGHT, duration(last), "end"),
    )


def sweep(report: Report) -> str:
    """Rows a second (solid) and p50 of a request (dotted) by batch size, the knee circled.

    Empty where fewer than two sizes ran.
    """
    ran = [
        (each.rows, each.rows_per_s, each.p50_s) for each in report.sweep if each.rows_per_s and each.p50_s
    ]
    if len(ran) < 2:
        return ""
    fastest, slowest = max(per_s for _, per_s, _ in ran), max(p50 for _, _, p50 in ran)
    xs = [_x(at, len(ran) - 1) for at in range(len(ran))]
    per_s = [(x, _y(each[1], fastest)) for x, each in zip(xs, ran, strict=True)]
    p50 = [(x, _y(each[2], slowest)) for x, each in zip(xs, ran, strict=True)]
    knee = [point for point, each in zip(per_s, ran, strict=True) if each[0] == report.knee]
    return _drawing(
        "Rows a second (solid) and p50 of a request (dotted) by rows in a batch",
        f"{fastest:,.0f} rows/s",
        _line(per_s, "#2563eb"),
        _line(p50, "#b45309", dotted=True),
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="none" stroke="#b91c1c"/>' for x, y in knee),
        *(_label(x, str(rows), "middle") for x, (rows, _, _) in zip(xs, ran, strict=True)),
        f'<text x="{WIDTH - RIGHT + 6}" y="{TOP + 4}">{escape(duration(slowest))}</text>',
    )


def _drawing(title: str, highest: str, *parts: str) -> str:
    floor = HEIGHT - BOTTOM
    axis = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}" stroke="#d3dae1"/>'
    return (
        f'<h2>{escape(title)}</h2><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img" '
        f'aria-label="{escape(title)}">{axis}<text x="{LEFT - 6}" y="{TOP + 4}" text-anchor="end">'
        f"{escape(highest)}</text>{''.join(parts)}</svg>"
    )


def _line(points: Sequence[Point], colour: str, *, dotted: bool = False) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = ' stroke-dasharray="3 3"' if dotted else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dashes}/>'


def _label(x: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="{anchor}">{escape(text)}</text>'


def _x(value: float, largest: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (value / largest if largest > 0 else 0.0)


def _y(value: float, largest: float) -> float:
    share = min(1.0, max(0.0, value / largest)) if largest > 0 else 0.0
    return TOP + (HEIGHT - BOTTOM - TOP) * (1 - share)
