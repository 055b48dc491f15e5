"""A trace of torch.profiler, read: its tree, its layers, its memory. Pure.

Only what happened inside the requests we marked counts. Modules are named by their place in the network
(`Linear encoder.0.lin`) where the profiler's own numbering (`nn.Module: Linear_3`) is known to be of one.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from serving_agent.contract.profile import Layer
from serving_agent.profiling.intervals import Interval, Node, nested, walk, without

MARK: Final = "signalbox: "
"""How the names of marks around requests and stages begin."""
REQUEST: Final = MARK + "request"
"""Name of the mark around each request; those of stages end in their names."""
MODULE: Final = "nn.Module: "
MICRO: Final = 1e-6
MOST_MEMORY_POINTS: Final = 2000
PYTHON: Final = "python_function"
ANNOTATION: Final = "user_annotation"
KIND: Final = {"cpu_op": "operator", PYTHON: "function", ANNOTATION: "operator"}
"""Category of an event → kind of its box; all others are left out of the tree."""
_MARKING: Final = re.compile(r"\(torch/(?:profiler/|autograd/profiler)")
"""Frames of record_function in models' own code: neither they nor what they call is part of the request."""
_WRAPPER: Final = re.compile(
    r"^_(?:wrapped_)?call_impl \(torch/nn/modules/module\.py|\(serving_agent/profiling/"
)
"""Frames that only call the next: between a module and its `forward`, and ours around a request."""
_PLACE: Final = re.compile(r"^(?P<file>.+?)\((?P<line>\d+)\): (?P<name>.+)$")
_OBJECT: Final = re.compile(
    r"<built-in (?:method|function) ([\w.<>]+)(?: of .*)?>|<([\w.]+) object at 0x\w+>"
)
_MARKS: Final = (
    ("/site-packages/", ""), ("/dist-packages/", ""), ("/lib/python3", ""),
    ("/serving_agent/", "serving_agent/"),
)  # fmt: skip
"""What stands before the part of a path that is kept, and what is put before that."""


class Event(msgspec.Struct, frozen=True):
    """One event of a trace, as far as it is read; times in microseconds."""

    ph: str = ""
    name: str = ""
    cat: str = ""
    ts: float = 0.0
    dur: float = 0.0
    tid: int | str = 0
    args: dict[str, Any] = {}


class _Trace(msgspec.Struct, frozen=True):
    traceEvents: list[Event]  # noqa: N815 - its name in the file


def read(content: bytes, paths: Mapping[str, str]) -> list[Event]:
    """Return the events of a trace file, modules named by *paths*: `nn.Module: Linear_3` → its path.

    Raises msgspec.DecodeError.
    """
    events = msgspec.json.decode(content, type=_Trace).traceEvents
    return [_named(event, paths) for event in events]


def _named(event: Event, paths: Mapping[str, str]) -> Event:
    if event.cat != PYTHON:
        return event
    if event.name.startswith(MODULE):
        return msgspec.structs.replace(event, name=layer_name(event.name, paths))
    return msgspec.structs.replace(event, name=short(event.name))


def layer_name(name: str, paths: Mapping[str, str]) -> str:
    """Return `Linear encoder.0` for `nn.Module: Linear_3` whose path is known; `Linear` where it is not."""
    kind = name.removeprefix(MODULE).rpartition("_")[0] or name
    path = paths.get(name)
    return MODULE + (kind if path is None else f"{kind} {path or '(network)'}")


def short(name: str) -> str:
    """Return a Python frame's name without folders and addresses that differ from machine to machine."""
    if built_in := _OBJECT.match(name):
        return built_in[1] or built_in[2]
    place = _PLACE.match(name)
    if place is None:
        return name
    return f"{place['name']} ({short_file(place['file'])}:{place['line']})"


def is_python(name: str) -> bool:
    """Tell whether torch.profiler's *name* is that of Python code rather than of an operator."""
    return name.startswith(("<", MODULE)) or _PLACE.match(name) is not None


def short_file(file: str) -> str:
    """Return *file* from its package on, or its last three parts."""
    if not file.startswith("/"):
        return file
    for mark, kept in _MARKS:
        before, found, rest = file.rpartition(mark)
        if found and before:
            return kept + (rest.partition("/")[2] if mark == "/lib/python3" else rest)
    return "/".join(file.split("/")[-3:])


def requests(events: Iterable[Event]) -> list[Node]:
    """Return one tree for each marked request, in microseconds, without the profiler's own frames."""
    marked = [event for event in events if event.ph == "X" and event.name == REQUEST]
    if not marked:
        return []
    thread = marked[0].tid
    bounds = sorted((event.ts, event.ts + event.dur) for event in marked if event.tid == thread)
    inside = [
        Interval(_tidy(event.name), event.ts, event.ts + event.dur, _kind(event))
        for event in unmarked(_within(events, thread, bounds))
    ]
    roots = [root for root in nested(inside) if root.kind == "stage" and root.name == _tidy(REQUEST)]
    return without(roots, lambda node: _WRAPPER.search(node.name) is not None)


def unmarked(events: Iterable[Event]) -> Iterator[Event]:
    """Yield *events*, in order of their beginnings, without frames that mark and those inside them.

    An annotation begins inside the frame that makes it and outlives it, so these frames must go before events
    are nested.
    """
    hidden_until = 0.0
    for event in events:
        if event.cat != ANNOTATION and event.ts + event.dur <= hidden_until:
            continue
        if event.cat == PYTHON and _MARKING.search(event.name):
            hidden_until = max(hidden_until, event.ts + event.dur)
        else:
            yield event


def _tidy(name: str) -> str:
    return name.removeprefix(MODULE).removeprefix(MARK)


def _kind(event: Event) -> str:
    if event.name.startswith(MARK):
        return "stage"
    if event.cat == PYTHON and event.name.startswith(MODULE):
        return "layer"
    return KIND[event.cat]


def _within(
    events: Iterable[Event], thread: int | str, bounds: Sequence[tuple[float, float]]
) -> Iterator[Event]:
    """Yield the timed events of *thread* that began within *bounds*, in order of their beginnings."""
    at = 0
    timed = (event for event in events if event.ph == "X" and event.tid == thread and event.cat in KIND)
    for event in sorted(timed, key=lambda each: (each.ts, -each.dur)):
        while at < len(bounds) and bounds[at][1] <= event.ts:
            at += 1
        if at == len(bounds):
            return
        if event.ts >= bounds[at][0]:
            yield event


def layers(roots: Sequence[Node]) -> tuple[Layer, ...]:
    """Return the network's modules by their own time in a request, largest first.

    Times are medians over the requests: one that the machine held up says nothing about the model.
    """
    found: dict[str, list[tuple[int, float, float]]] = {}
    for root in roots:
        seen: dict[str, tuple[int, float, float]] = {}
        _add_layers(root, seen)
        for name, figures in seen.items():
            found.setdefault(name, []).append(figures)
    listed = [_layer(name, figures, len(roots)) for name, figures in found.items()]
    return tuple(sorted(listed, key=lambda layer: (-layer.self_s, layer.path)))


def _layer(name: str, figures: Sequence[tuple[int, float, float]], requests: int) -> Layer:
    """Return the layer *name* from (calls, own time, time) in each request in which it ran."""
    kind, _, path = name.partition(" ")
    missing = [0.0] * (requests - len(figures))
    return Layer(
        path=path or kind,
        kind=kind,
        calls=sum(calls for calls, _, _ in figures),
        self_s=statistics.median([*missing, *(own for _, own, _ in figures)]) * MICRO,
        total_s=statistics.median([*missing, *(total for _, _, total in figures)]) * MICRO,
    )


def _add_layers(node: Node, seen: dict[str, tuple[int, float, float]]) -> float:
    """Add the layers in *node* to *seen*; return the time that outermost ones among them took."""
    inner = sum(_add_layers(child, seen) for child in node.children)
    if node.kind != "layer":
        return inner
    calls, own, total = seen.get(node.name, (0, 0.0, 0.0))
    seen[node.name] = (calls + 1, own + max(0.0, node.total - inner), total + node.total)
    return node.total


def own_time(roots: Iterable[Node]) -> float:
    """Return the self times of all nodes together, in seconds."""
    return sum(node.own for node in walk(roots)) * MICRO


def memory(events: Sequence[Event], device_type: int) -> tuple[tuple[float, int], ...]:
    """Return (seconds since the first, bytes held above what was held then) of *device_type* (0: CPU).

    Of more than MOST_MEMORY_POINTS points, the highest and the lowest of each stretch.
    """
    seen = [
        (event.ts, int(event.args.get("Total Allocated", 0)))
        for event in events
        if event.name == "[memory]" and event.args.get("Device Type") == device_type
    ]
    seen.sort(key=lambda point: point[0])
    if not seen:
        return ()
    began = seen[0][0]
    return tuple((round((ts - began) * MICRO, 9), held) for ts, held in thinned(seen, MOST_MEMORY_POINTS))


def thinned(points: Sequence[tuple[float, int]], most: int) -> list[tuple[float, int]]:
    """Return at most *most* of *points*, with the highest and lowest of each stretch among them."""
    if len(points) <= most:
        return list(points)
    stretch = -(-len(points) // max(1, most // 2))
    kept: list[tuple[float, int]] = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        ends = {part.index(min(part, key=lambda p: p[1])), part.index(max(part, key=lambda p: p[1]))}
        kept += [part[index] for index in sorted(ends)]
    return kept
