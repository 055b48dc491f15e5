"""cProfile over some requests: the classic table of functions."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable, Mapping
from typing import Any, Final

from serving_agent.contract.profile import MOST_FUNCTIONS, Function
from serving_agent.profiling import turns
from serving_agent.profiling.subject import Asked
from serving_agent.profiling.trace import short, short_file
from serving_agent.profiling.turns import Turns

NAME: Final = "functions"
BUILT_IN: Final = "~"
"""File of built-in functions, as pstats writes it."""
_OURS: Final = ("serving_agent/profiling/", "cProfile.py")

Stats = Mapping[tuple[str, int, str], tuple[int, int, float, float, Any]]


def take(ask: Callable[[], Asked], requests: int, seconds: float) -> tuple[tuple[Function, ...], Turns]:
    """Watch up to *requests* requests, each after a plain one."""
    profiler = cProfile.Profile()
    seen = turns.alternate(ask, lambda: profiler.runcall(ask), requests, seconds)
    stats: Stats = pstats.Stats(profiler).stats  # type: ignore[attr-defined]  # it has one, untyped
    return functions(stats), seen


def functions(stats: Stats) -> tuple[Function, ...]:
    """Return what pstats holds, by the functions' own time, largest first.

    Of more than MOST_FUNCTIONS half are those with the largest cumulative times, the rest those with the
    largest own ones.
    """
    found = [
        Function(
            name=name if file != BUILT_IN else short(name),
            place="built-in" if file == BUILT_IN else f"{short_file(file)}:{line}",
            calls=calls,
            primitive_calls=primitive,
            self_s=own,
            total_s=total,
        )
        for (file, line, name), (primitive, calls, own, total, _) in stats.items()
        if not any(mark in file for mark in _OURS) and "_lsprof.Profiler" not in name
    ]
    found.sort(key=lambda each: (-each.self_s, -each.total_s, each.name))
    if len(found) <= MOST_FUNCTIONS:
        return tuple(found)
    by_total = sorted(range(len(found)), key=lambda at: -found[at].total_s)
    kept = set(by_total[: MOST_FUNCTIONS // 2])
    kept.update([at for at in range(len(found)) if at not in kept][: MOST_FUNCTIONS - len(kept)])
    return tuple(found[at] for at in sorted(kept))
