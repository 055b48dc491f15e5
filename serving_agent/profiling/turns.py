"""Plain requests and watched ones, turn by turn: what is measured is compared under the same conditions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import msgspec

from serving_agent.contract.profile import Overhead, Times
from serving_agent.profiling.subject import Asked
from serving_agent.profiling.timings import times

Ask = Callable[[], Asked]


class Turns(msgspec.Struct, frozen=True):
    """Both kinds of requests, in order."""

    plain: tuple[Asked, ...]
    watched: tuple[Asked, ...]


def alternate(plain: Ask, watched: Ask, requests: int, seconds: float) -> Turns:
    """Ask *requests* of each kind in turn; fewer where *seconds* are over before, but one each."""
    seen: tuple[list[Asked], list[Asked]] = ([], [])
    until = time.perf_counter() + seconds
    while len(seen[0]) < max(1, requests):
        seen[0].append(plain())
        seen[1].append(watched())
        if time.perf_counter() > until:
            break
    return Turns(tuple(seen[0]), tuple(seen[1]))


def repeat(ask: Ask, requests: int, seconds: float) -> tuple[Asked, ...]:
    """Ask *requests* times; fewer where *seconds* are over before, but once at least."""
    seen: list[Asked] = []
    until = time.perf_counter() + seconds
    while len(seen) < max(1, requests):
        seen.append(ask())
        if time.perf_counter() > until:
            break
    return tuple(seen)


def overhead(name: str, turns: Turns) -> Overhead:
    """Return what watching cost in *turns*."""
    return Overhead(
        name=name,
        plain_s=statistics.median(asked.wall_s for asked in turns.plain),
        profiled_s=statistics.median(asked.wall_s for asked in turns.watched),
    )


def stages(asked: Sequence[Asked]) -> tuple[Times, ...]:
    """Return the stages of requests that had no queue in front of them."""
    return (
        times("preprocess", [each.stages.preprocess_s for each in asked]),
        times("predict", [each.stages.predict_s for each in asked]),
        times("postprocess", [each.stages.postprocess_s for each in asked]),
        times("encode", [each.encode_s for each in asked]),
        times("other", [max(0.0, each.wall_s - each.stages.total_s - each.encode_s) for each in asked]),
    )
