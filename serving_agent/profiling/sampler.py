"""A sampling profiler: a thread that looks at the stacks of the others so many times a second.

It runs nothing in the threads it watches and stops nothing: a look takes the interpreter for some ten
microseconds. Memory is bounded: stacks are kept once, their order as runs; beyond the bounds a stack counts
as the part of it that is known, and `cut` says so.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Collection, Iterable
from types import FrameType
from typing import Final

from serving_agent.contract.profile import MAX_RATE_HZ, Frame, Samples, ThreadSamples
from serving_agent.profiling.trace import short_file

MOST_FRAMES: Final = 20_000
MOST_STACKS: Final = 5_000
"""Of each thread."""
MOST_RUNS: Final = 200_000
"""Of each thread."""
DEEPEST: Final = 200
"""Innermost frames beyond this many of a stack are left out."""
IDLE: Final = frozenset({
    ("threading.py", "wait"), ("threading.py", "run"), ("selectors.py", "select"), ("queue.py", "get"),
    ("thread.py", "_worker"), ("socket.py", "accept"), ("runners.py", "run"),
    ("base_events.py", "run_forever"),
})  # fmt: skip
"""Innermost frames, by the end of their file and their name, of threads that wait, in Python or below it."""
JOIN_S: Final = 5.0


class _Thread:
    """What was seen of one thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stacks: dict[tuple[int, ...], int] = {}
        self.runs: list[list[int]] = []

    def put(self, stack: tuple[int, ...] | None) -> bool:
        """Count *stack*, None for waiting; False where a bound was reached."""
        index = -1
        whole = True
        if stack is not None:
            known = self.stacks.get(stack)
            if known is None and len(self.stacks) >= MOST_STACKS:
                stack, whole = stack[:1], False
                known = self.stacks.get(stack)
            index = self.stacks.setdefault(stack, len(self.stacks)) if known is None else known
        if self.runs and (self.runs[-1][0] == index or len(self.runs) >= MOST_RUNS):
            self.runs[-1][1] += 1
            return whole and self.runs[-1][0] == index
        self.runs.append([index, 1])
        return whole


class Sampler:
    """Watches threads from `start` until `stop`."""

    def __init__(self, rate_hz: int, only: Collection[int] | None = None) -> None:
        """*only*: identifiers of the threads to watch; None for all but its own."""
        self._interval_s = 1 / max(1, min(rate_hz, MAX_RATE_HZ))
        self._only = only
        self._frames: dict[tuple[str, str, int], int] = {}
        self._codes: dict[int, tuple[object, int]] = {}
        self._threads: dict[int, _Thread] = {}
        self._looks = 0
        self._cut = False
        self._held_s = 0.0
        self._since_s: float | None = None
        self._watched_s = 0.0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="profile-sampler", daemon=True)

    def start(self) -> None:
        """Begin."""
        self.pause(paused=False)
        self._thread.start()

    def halt(self) -> None:
        """Look no more, and let the thread end; does not wait for it. Idempotent."""
        self.pause(paused=True)
        self._ending.set()

    def stop(self) -> Samples:
        """End, and return what was seen. Idempotent."""
        self.halt()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(JOIN_S)
        return self._samples()

    @property
    def overhead(self) -> float:
        """Share of the time in which it held the interpreter."""
        return self._held_s / self._watched_s if self._watched_s > 0 else 0.0

    def pause(self, *, paused: bool) -> None:
        """Look no more, or again: for turns without it. Idempotent."""
        now_s = time.perf_counter()
        if paused and self._since_s is not None:
            self._watched_s += now_s - self._since_s
            self._since_s = None
        elif not paused and self._since_s is None:
            self._since_s = now_s

    def look(self, frames: Iterable[tuple[int, FrameType]], names: dict[int, str]) -> None:
        """Count one stack for each thread of *frames*."""
        self._looks += 1
        for ident, frame in frames:
            if ident not in self._threads:
                self._threads[ident] = _Thread(names.get(ident, f"thread {len(self._threads) + 1}"))
            if not self._threads[ident].put(self._stack(frame)):
                self._cut = True

    def _run(self) -> None:
        own = threading.get_ident()
        due_s = time.perf_counter()
        while not self._ending.is_set():
            due_s += self._interval_s
            now_s = time.perf_counter()
            if due_s < now_s:  # the machine is busy: skip what cannot be made up for
                due_s = now_s
            if self._ending.wait(due_s - now_s):
                break
            if self._since_s is not None:
                self._look_once(own)

    def _look_once(self, own: int) -> None:
        started_s = time.perf_counter()
        names = {thread.ident: thread.name for thread in threading.enumerate() if thread.ident is not None}
        current = sys._current_frames()
        wanted = (
            (ident, frame)
            for ident, frame in current.items()
            if ident != own and (self._only is None or ident in self._only)
        )
        self.look(wanted, names)
        self._held_s += time.perf_counter() - started_s

    def _stack(self, frame: FrameType) -> tuple[int, ...] | None:
        """Return the frames of a thread at work, outermost first; None for one that waits."""
        code = frame.f_code
        if (code.co_filename.rpartition("/")[2], code.co_name) in IDLE:
            return None
        stack: list[int] = []
        at: FrameType | None = frame
        while at is not None:
            stack.append(self._index(at))
            at = at.f_back
        stack.reverse()
        return tuple(stack[:DEEPEST])

    def _index(self, frame: FrameType) -> int:
        code = frame.f_code
        known = self._codes.get(id(code))
        if known is not None:
            return known[1]
        key = (code.co_qualname, short_file(code.co_filename), code.co_firstlineno)
        index = self._frames.get(key)
        if index is None:
            if len(self._frames) >= MOST_FRAMES:
                self._cut = True
                return 0
            index = self._frames[key] = len(self._frames)
        self._codes[id(code)] = (code, index)  # the code is held, so that its id stays its own
        return index

    def _samples(self) -> Samples:
        seconds = self._watched_s
        return Samples(
            frames=tuple(Frame(*key) for key in self._frames),
            threads=tuple(
                ThreadSamples(
                    name=thread.name,
                    stacks=tuple(thread.stacks),
                    runs=tuple((stack, count) for stack, count in thread.runs),
                )
                for thread in self._threads.values()
            ),
            samples=self._looks,
            interval_s=seconds / self._looks if self._looks else self._interval_s,
            seconds=seconds,
            cut=self._cut,
        )
