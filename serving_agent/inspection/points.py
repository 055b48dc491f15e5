"""What a capture tells of each layer or node, as points; edits take place here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from serving_agent.contract.inspection import Point
from serving_agent.inspection import structures
from serving_agent.inspection.edits import Edits
from serving_agent.inspection.summaries import Summaries, UnreadableError
from serving_agent.limits import is_out_of_memory

MOST: Final = 10_000
"""Points of one run; a loop in a model may make any number of calls."""
MOST_TENSORS: Final = 20_000
"""Tensors of all points together: a layer may return thousands, again and again."""


class Clock:
    """The model's own time: what recording takes is left out."""

    def __init__(self, wait: Callable[[], object] | None = None) -> None:
        """*wait*: until the device has done what it was told; None where that is done at once."""
        self._wait = wait
        self._aside_s = 0.0
        self._depth = 0
        """Bodies aside that have begun and not ended."""
        self._left_at = 0.0

    def now(self) -> float:
        """Seconds since some moment, without what was spent aside."""
        if self._wait is not None:
            self._wait()
        return time.perf_counter() - self._aside_s

    def aside(self) -> Self:
        """Leave the body's time out, once where bodies lie in each other."""
        return self

    def __enter__(self) -> Self:
        if self._depth == 0:
            self._left_at = time.perf_counter()
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._aside_s += time.perf_counter() - self._left_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A layer or node that has run."""

    module: str
    """Path of the module that it is, or that the node is of."""
    kind: str
    node: str = ""
    """The node's name in its graph, or in its module; empty for a module."""
    source: str = ""
    ends_module: bool = True
    """Whether its module's last node gives what the module returns, as far as the graph tells."""
    depth: int = 0
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Where a model failed."""

    module: str
    place: str = ""
    """`file:line` of the model's own code; empty where it is to be found in the error itself."""


class Points:
    """The points of one run, in the order in which their outputs were there."""

    def __init__(
        self, summaries: Summaries, edits: Edits, told: Callable[[int], None], clock: Clock | None = None
    ) -> None:
        """*told*: called with the number of points after each."""
        self.clock = clock or Clock()
        self.points: list[Point] = []
        self.names: list[str] = []
        """Every id that there was, those beyond MOST too."""
        self.notes: list[str] = []
        self.around: tuple[str, ...] = ()
        """Names of modules that the lab has put around the network, outermost first; no path has them."""
        self.trouble: Trouble | None = None
        """Set by the capture where an error came out of one of its points."""
        self._summaries = summaries
        self._edits = edits
        self._told = told
        self._calls: Counter[str] = Counter()
        self._tensors = 0
        """That were summed up."""

    def note(self, sentence: str) -> None:
        """Have the run say *sentence*."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def failed_in(self, module: str, place: str = "") -> None:
        """Say where an error came from; the innermost point speaks first and is heard."""
        if self.trouble is None:
            self.trouble = Trouble(self._path(module), place)

    def record(self, seen: Seen, value: Any, extra: Callable[[], dict[str, Any]] | None = None) -> Any:
        """Take what *seen* returned, and return what the run goes on with: *value*, or an edited one.

        extra: more tensors that belong to it and are not returned, by name. Raises EditError, and OSError
        where the disk is full.
        """
        with self.clock.aside():
            name = self._id(seen)
            call = self._calls[name]
            self._calls[name] += 1
            if call:
                name = f"{name}#{call}"
            self.names.append(name)
            edited = name in self._edits
            if edited:
                value = self._edits.apply(name, value)
            if len(self.points) < MOST:
                self.points.append(self._point(name, seen, value, extra, edited=edited))
            else:
                self.note(f"Only the first {MOST} points of the run are shown.")
            self._told(len(self.points))
        return value

    def missing(self, seen: Seen, why: str) -> Point:
        """Return a point for a module that was not recorded."""
        return Point(
            id=self._id(seen),
            module=self._path(seen.module),
            kind=seen.kind,
            depth=seen.depth,
            not_captured=why,
        )

    def _id(self, seen: Seen) -> str:
        path = self._path(seen.module)
        return f"{path}/{seen.node}" if seen.node else path or seen.kind

    def _path(self, module: str) -> str:
        """The path as the network itself names it."""
        within = ".".join(self.around)
        if not within:
            return module
        return "" if f"{within}.".startswith(f"{module}.") else module.removeprefix(f"{within}.")

    def _point(
        self,
        name: str,
        seen: Seen,
        value: Any,
        extra: Callable[[], dict[str, Any]] | None,
        *,
        edited: bool,
    ) -> Point:
        outputs, why = [], ""
        found = structures.leaves(value)
        if extra is not None:
            found += list(extra().items())
        left = MOST_TENSORS - self._tensors
        if len(found) > left:
            why = f"Only the first {MOST_TENSORS} tensors of the run are shown."
            self.note(why)
        for label, leaf in found[:left]:
            try:
                outputs.append(self._summaries.of(label, leaf))
            except UnreadableError as error:
                why = str(error)
            except Exception as error:
                if is_out_of_memory(error) or isinstance(error, OSError):
                    raise
                why = f"it cannot be summed up: {type(error).__name__}: {error}"
        self._tensors += len(outputs)
        if not found and not why:
            why = f"It returned {_described(value)}, which holds no tensor."
        return Point(
            id=name,
            module=self._path(seen.module) if seen.ends_module else "",
            kind=seen.kind,
            source=seen.source,
            seconds=seen.seconds,
            depth=max(seen.depth - len(self.around), 0),
            outputs=tuple(outputs),
            not_captured="" if outputs else _sentence(why),
            edited=edited,
        )


def _sentence(text: str) -> str:
    """*text* as a sentence."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else text


def _described(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"
