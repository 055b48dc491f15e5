"""Batch sizes one after another: how long a request of so many rows takes, and what memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Final

from serving_agent import limits
from serving_agent.contract.profile import SweepPoint
from serving_agent.profiling import turns
from serving_agent.profiling.memory import peak_bytes, reset_peak
from serving_agent.profiling.subject import Subject

NAME: Final = "sweep"
MOST_CALLS: Final = 50
WARM_UPS: Final = 1
TOO_SLOW: Final = 4
"""A size is left out where the one before it took so much of the time that this one would not fit."""


def take(
    subject: Subject, sizes: Sequence[int], seconds: float, share: Callable[[float], None]
) -> tuple[SweepPoint, ...]:
    """Return one point for each of *sizes*, each within about *seconds*.

    A size that fails, for memory or because the model takes no such batch, says so in its point; larger ones
    are not tried after memory ran out.
    """
    points: list[SweepPoint] = []
    for at, rows in enumerate(sizes):
        share(at / len(sizes))
        point = _point(subject, rows, seconds, points[-1] if points else None)
        points.append(point)
        if point.problem == _MEMORY:
            break
    return tuple(points)


_MEMORY: Final = "it needs more memory than it may use"


def _point(subject: Subject, rows: int, seconds: float, before: SweepPoint | None) -> SweepPoint:
    if before is not None and before.p50_s is not None:
        expected_s = before.p50_s * rows / before.rows
        if expected_s > seconds * TOO_SLOW:
            return SweepPoint(
                rows=rows, problem=f"left out: it would take about {expected_s:.3g} s a request"
            )
    try:
        can_tell = reset_peak(subject.device)
        inputs = subject.inputs(rows)
        for _ in range(WARM_UPS):
            subject.ask(inputs)
        asked = turns.repeat(lambda: subject.ask(inputs), MOST_CALLS, seconds)
        peak = peak_bytes(subject.device) if can_tell else None
    except Exception as error:  # noqa: BLE001 - whatever a model raises is this size's problem
        return SweepPoint(rows=rows, problem=_problem(error))
    p50_s = statistics.median(each.wall_s for each in asked)
    return SweepPoint(
        rows=rows,
        p50_s=p50_s,
        rows_per_s=rows / p50_s if p50_s > 0 else None,
        peak_bytes=None if peak is None else max(0, peak - subject.held_before),
        calls=len(asked),
    )


def _problem(error: Exception) -> str:
    if limits.is_out_of_memory(error):
        return _MEMORY
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]
