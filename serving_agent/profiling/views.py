"""Samples as flame views, and the largest cost of a report. Pure, and without torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from serving_agent.contract.profile import Flame, Frame, Report, Samples, ThreadSamples
from serving_agent.profiling import intervals

SAMPLES: Final = "samples"
NETWORK: Final = "(network)"
"""Path of the outermost module."""
MOSTLY_ONE_CALL: Final = 0.5
"""Share of the layers' own time from which on the outermost module is all that can be seen."""
_WRAPPER: Final = re.compile(r"^Module\._(wrapped_)?call_impl$")
OWN: Final = "serving_agent/profiling/"


def flames_of(samples: Samples) -> tuple[Flame, ...]:
    """Return one flame view for each thread that was seen at work, the busiest first."""
    views: list[Flame] = []
    for thread in samples.threads:
        stacks = weighted(samples, thread)
        if stacks:
            tree = intervals.stacked(stacks)
            views.append(
                Flame(
                    name=f"{SAMPLES} · {thread.name}",
                    nodes=intervals.flattened(tree),
                    total_s=sum(root.total for root in tree),
                )
            )
    return tuple(sorted(views, key=lambda view: -view.total_s))


def tells_layers(report: Report) -> bool:
    """Tell whether layers say where the time goes.

    Not where the whole network is one call into an engine, nor on a GPU, where they only start kernels.
    """
    if report.key.device != "cpu":
        return False
    whole = sum(layer.self_s for layer in report.layers)
    own = sum(layer.self_s for layer in report.layers if layer.path == NETWORK)
    return whole > 0 and own <= MOSTLY_ONE_CALL * whole


def largest(report: Report) -> tuple[str, float | None]:
    """Return the name of the largest cost and its share of all; a layer where they can be told apart."""
    if tells_layers(report):
        whole = sum(layer.self_s for layer in report.layers)
        top = max(report.layers, key=lambda layer: layer.self_s)
        return top.path, top.self_s / whole if whole else None
    if report.operators:
        whole = sum(each.self_s + each.device_self_s for each in report.operators)
        first = report.operators[0]
        return first.name, (first.self_s + first.device_self_s) / whole if whole else None
    named = [each for flame in report.flames[:1] for each in flame.nodes if each.kind == "function"]
    if named:
        node = max(named, key=lambda each: each.self_s)
        whole = report.flames[0].total_s
        return node.name.partition(" (")[0], node.self_s / whole if whole else None
    return "", None


def weighted(samples: Samples, thread: ThreadSamples) -> list[tuple[list[str], float, int]]:
    """Return the stacks of *thread* as names, outermost first, with seconds and samples; waiting left out."""
    counts = [0] * len(thread.stacks)
    for stack, count in thread.runs:
        if stack >= 0:
            counts[stack] += count
    return [
        (
            [named(samples.frames[index]) for index in inside(stack, samples.frames)],
            count * samples.interval_s,
            count,
        )
        for stack, count in zip(thread.stacks, counts, strict=True)
        if count
    ]


def inside(stack: Sequence[int], frames: Sequence[Frame]) -> list[int]:
    """Return *stack* without frames that tell nothing.

    Those are the profiler's own and what called them, a thread's beginning, and what stands between a module
    and its `forward`.
    """
    last = max((at for at, index in enumerate(stack) if _is_outside(frames[index])), default=-1)
    return [index for index in stack[last + 1 :] if not _WRAPPER.search(frames[index].name)]


def _is_outside(frame: Frame) -> bool:
    return frame.file.startswith(OWN) or (frame.file, frame.name.partition(".")[0]) == (
        "threading.py",
        "Thread",
    )


def named(frame: Frame) -> str:
    """Return a frame in the form of the other views."""
    return f"{frame.name} ({frame.file}:{frame.line})" if frame.file else frame.name
