"""torch.profiler over some requests: operators, layers, flame, memory and the trace itself."""

from __future__ import annotations

import gc
import gzip
import logging
import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from serving_agent.contract.profile import MOST_LAYERS, MOST_OPERATORS, TRACE, Flame, Layer, Operator
from serving_agent.profiling import intervals, trace
from serving_agent.profiling.failures import TooLargeTraceError
from serving_agent.profiling.intervals import Node
from serving_agent.profiling.subject import Asked, Subject

if TYPE_CHECKING:
    from torch.profiler import profile

logger = logging.getLogger(__name__)

NAME: Final = "operators"
MOST_EVENTS: Final = 300_000
"""Events of one trace: enough for every request of most models; of larger ones fewer requests are traced."""
MOST_READ: Final = 2_000_000
"""Events of one request that are read at all: each takes about a kilobyte while it is."""
HELD_UP: Final = 3
"""How many times the median a request may take that counts as usual."""
COMPRESSION: Final = 5
RAW: Final = "trace.json"
"""The trace while it is read."""
RUNTIME: Final = re.compile(r"^(cu|cuda|hip)[A-Z]")
"""Calls into a GPU's runtime: what they started is counted with the operator that made them."""
_FIRST: Final = 1
"""Requests of the first trace, which tells how many events one makes."""


class Traced(msgspec.Struct, frozen=True):
    """What one trace tells."""

    asked: tuple[Asked, ...]
    roots: tuple[Node, ...]
    """One tree for each request, in microseconds."""
    flame: Flame
    operators: tuple[Operator, ...]
    layers: tuple[Layer, ...]
    memory: tuple[tuple[float, int], ...]
    memory_device: str
    wall_s: float
    """Of one request: the median, as the next."""
    self_s: float
    notes: tuple[str, ...]


def take(subject: Subject, ask: Callable[[], Asked], requests: int, seconds: float, out: Path) -> Traced:
    """Trace up to *requests* requests, within about *seconds*, and leave the trace in *out*.

    Raises TooLargeTraceError where one request is too much to read.
    """
    paths: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    with_stack = True
    try:
        profiler, asked, walls_s = _trace(subject, ask, _FIRST, seconds, with_stack=True)
    except UnicodeDecodeError:  # the name of a built-in function whose memory was freed
        logger.exception("stacks cannot be read")
        notes += ("Stacks of this model cannot be read by torch.profiler: there are operators, no layers",)
        with_stack = False
        profiler, asked, walls_s = _trace(subject, ask, _FIRST, seconds, with_stack=False)
    events = _count(profiler, paths)
    if events > MOST_READ and with_stack:
        notes += (
            f"One request makes more than {MOST_READ:,} events with stacks: there are operators, no layers",
        )
        with_stack = False
        del profiler  # or both traces would be held at once
        profiler, asked, walls_s = _trace(subject, ask, _FIRST, seconds, with_stack=False)
        events = _count(profiler, paths)
    if events > MOST_READ:
        raise TooLargeTraceError(f"one request makes more than {MOST_READ:,} events: too many to read")
    began_s = asked[0].wall_s
    wanted = affordable(requests, events, began_s, seconds)
    if wanted < requests:
        notes += (
            f"torch.profiler watched {wanted} of {requests} requests: each makes {events:,} events and "
            f"takes {began_s:.3g} s while it is watched",
        )
    if wanted > _FIRST:
        profiler, asked, walls_s = _trace(subject, ask, wanted, seconds, with_stack=with_stack)
        _count(profiler, paths)
    content = _exported(profiler, out)
    _keep(content, out / TRACE)
    return _read(content, paths, profiler, asked, statistics.median(walls_s), subject.device, notes)


def affordable(requests: int, events: int, request_s: float, seconds: float) -> int:
    """Return how many of *requests* are traced, one at least, where each makes *events* in *request_s*."""
    by_events = MOST_EVENTS // max(1, events)
    by_time = int(seconds / max(request_s, 1e-6))
    return max(1, min(requests, by_events, by_time))


def _trace(
    subject: Subject, ask: Callable[[], Asked], requests: int, seconds: float, *, with_stack: bool
) -> tuple[profile, tuple[Asked, ...], list[float]]:
    """Return the stopped profiler, the requests, and the time of each by the clock."""
    from torch._C._profiler import _RecordFunctionFast as Mark  # as compiled code marks itself: no Python
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if subject.device != "cpu":
        activities.append(ProfilerActivity.CUDA)
    asked: list[Asked] = []
    walls_s: list[float] = []
    until = time.perf_counter() + seconds
    with (
        subject.marked(lambda name: Mark(trace.MARK + name)),
        profile(
            activities=activities,
            record_shapes=True,
            profile_memory=True,
            with_stack=with_stack,
            with_modules=True,
            acc_events=True,
        ) as profiler,
    ):
        while len(asked) < requests and (not asked or time.perf_counter() < until):
            with Mark(trace.REQUEST):
                started = time.perf_counter()
                asked.append(ask())
                walls_s.append(time.perf_counter() - started)
    return profiler, tuple(asked), walls_s


def _count(profiler: Any, paths: dict[str, str]) -> int:
    """Return the number of events of *profiler*, and note in *paths* which module is which.

    It stops counting beyond MOST_READ.
    """
    known = _module_paths()
    count = 0
    waiting = list(profiler.profiler.kineto_results.experimental_event_tree())
    while waiting and count <= MOST_READ:
        event = waiting.pop()
        count += 1
        module = getattr(event.extra_fields, "module", None)
        if module is not None and module.self_ptr in known:
            paths.setdefault(event.name, known[module.self_ptr])
        waiting.extend(event.children)
    return count


def _module_paths() -> dict[int, str]:
    """Return the path of every module that lives here, by its address; the largest network names first."""
    from torch.nn import Module

    modules = [each for each in gc.get_objects() if issubclass(type(each), Module)]
    inner = {id(child) for each in modules for child in _children(each)}
    roots = [each for each in modules if id(each) not in inner]
    paths: dict[int, str] = {}
    for root in sorted(roots, key=lambda each: -sum(1 for _ in each.modules())):
        for path, module in root.named_modules():
            paths.setdefault(id(module), path)
    return paths


def _children(module: Any) -> Iterator[Any]:
    try:
        yield from module.children()
    except Exception:  # noqa: BLE001 - somebody's module, half built: it names nothing
        return


def _exported(profiler: Any, out: Path) -> bytes:
    """Return the trace in Chrome's format; it passes through *out*, which goes with its job."""
    path = out / RAW
    try:
        profiler.export_chrome_trace(str(path))
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)


def _keep(content: bytes, path: Path) -> None:
    """Write the trace; no half of it stays where that fails."""
    try:
        with gzip.open(path, "wb", compresslevel=COMPRESSION) as file:
            file.write(content)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _read(
    content: bytes,
    paths: dict[str, str],
    profiler: Any,
    asked: tuple[Asked, ...],
    wall_s: float,
    device: str,
    notes: tuple[str, ...],
) -> Traced:
    events = trace.read(content, paths)
    roots = trace.requests(events)
    typical = usual(roots)
    if left_out := len(roots) - len(typical):
        notes += (
            f"{left_out} of {len(roots)} watched requests took more than {HELD_UP} times the median: they "
            "were held up, and are in the trace but not in the flame view",
        )
    tree = intervals.merged(typical, trace.MICRO)
    layers = trace.layers(roots)
    if not layers and not any("layers" in note for note in notes):
        notes += (
            "This format runs without modules that could be told apart: there are operators, no layers",
        )
    on_gpu = device != "cpu"
    if on_gpu:
        notes += (
            "On a GPU layers and the flame view hold the time in which kernels are started, not in "
            "which they run: see the operators' device times",
        )
    return Traced(
        asked=asked,
        roots=tuple(roots),
        flame=Flame(
            name=NAME,
            nodes=intervals.flattened(tree),
            total_s=sum(each.total for each in tree),
            requests=len(typical),
        ),
        operators=tuple(_operators(profiler.key_averages(group_by_input_shape=True))),
        layers=layers[:MOST_LAYERS],
        memory=trace.memory(events, 1 if on_gpu else 0),
        memory_device=device,
        wall_s=wall_s,
        self_s=statistics.median(trace.own_time([root]) for root in roots) if roots else 0.0,
        notes=notes,
    )


def usual(roots: Sequence[Node]) -> list[Node]:
    """Return the requests of no more than HELD_UP times the median: others say nothing of the model."""
    if not roots:
        return []
    bound = HELD_UP * statistics.median(root.total for root in roots)
    return [root for root in roots if root.total <= bound]


def _operators(averages: Iterable[Any]) -> list[Operator]:
    """Return the operators by their own time, largest first; annotations of ours are none.

    Kernels and calls that start them have rows of their own, but their time is in that of their operators.
    """
    from torch._C._autograd import DeviceType

    found = [
        Operator(
            name=each.key,
            shapes=_shapes(each.input_shapes),
            calls=int(each.count),
            self_s=each.self_cpu_time_total * trace.MICRO,
            total_s=each.cpu_time_total * trace.MICRO,
            device_self_s=each.self_device_time_total * trace.MICRO,
            device_total_s=each.device_time_total * trace.MICRO,
            memory_bytes=int(each.self_cpu_memory_usage or each.self_device_memory_usage),
        )
        for each in averages
        if each.device_type == DeviceType.CPU and not RUNTIME.match(each.key)
        if not (trace.is_python(each.key) or each.key.startswith(trace.MARK) or each.key == "[memory]")
    ]
    found.sort(key=lambda each: -(each.self_s + each.device_self_s))
    return found[:MOST_OPERATORS]


def _shapes(shapes: Any) -> str:
    """Return input shapes as text: `[8, 64] [64, 64]`; scalars and what is no tensor left out."""
    return " ".join(str(shape) for shape in shapes if isinstance(shape, list) and shape)[:200]
