"""Small line drawings for key figures, as SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

WIDTH, HEIGHT, PAD = 120.0, 28.0, 2.0


def paths(values: Sequence[float | None]) -> tuple[str, ...]:
    """SVG path data of *values* in a box of WIDTH × HEIGHT, one path a run without gaps (None).

    The scale starts at zero so that noise in a quiet series does not look like a storm. Pure.
    """
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return ()
    top = max(*known, 0.0) or 1.0
    step = WIDTH / max(1, len(values) - 1)
    points = [
        None if value is None else (i * step, HEIGHT - PAD - max(0.0, value) / top * (HEIGHT - 2 * PAD))
        for i, value in enumerate(values)
    ]
    runs = (list(run) for there, run in groupby(points, key=lambda point: point is not None) if there)
    return tuple(_path([point for point in run if point is not None]) for run in runs)


def _path(points: Sequence[tuple[float, float]]) -> str:
    if len(points) == 1:
        x, y = points[0]
        points = [(x - 0.5, y), (x + 0.5, y)]
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
