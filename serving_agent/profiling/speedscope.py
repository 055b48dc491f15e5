"""Profiles in Speedscope's file format (https://www.speedscope.app/file-format-schema.json). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from serving_agent.contract.profile import Frame, Samples, ThreadSamples
from serving_agent.profiling.intervals import Node

SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"
EXPORTER: Final = "signalbox"
WAITS: Final = "(waits)"
MOST_EVENTS: Final = 400_000
"""Of one tree: what begins after them is left out."""


class File:
    """One file under construction: profiles share its frames."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._frames: dict[tuple[str, str, int], int] = {}
        self._profiles: list[dict[str, Any]] = []

    def add_tree(self, name: str, roots: Sequence[Node]) -> None:
        """Add *roots*, in microseconds and in order, as an evented profile; none where there are none."""
        if not roots:
            return
        events: list[dict[str, Any]] = []
        began = roots[0].start
        end = began
        for root in roots:
            if len(events) >= MOST_EVENTS:
                break
            self._add_events(root, began, events)
            end = root.end
        self._profiles.append({
            "type": "evented", "name": name, "unit": "microseconds", "startValue": 0,
            "endValue": round(end - began, 3), "events": events,
        })  # fmt: skip

    def add_samples(self, samples: Samples) -> None:
        """Add each thread that was seen at work as a sampled profile."""
        for thread in samples.threads:
            if any(stack >= 0 for stack, _ in thread.runs):
                self._profiles.append(self._sampled(thread, samples.frames, samples.interval_s))

    def content(self) -> dict[str, Any] | None:
        """Return the file as plain JSON; None where there is no profile to show."""
        if not self._profiles:
            return None
        frames = [
            {"name": name, **({"file": file} if file else {}), **({"line": line} if line else {})}
            for name, file, line in self._frames
        ]
        return {
            "$schema": SCHEMA,
            "name": self._name,
            "exporter": EXPORTER,
            "activeProfileIndex": 0,
            "shared": {"frames": frames},
            "profiles": self._profiles,
        }

    def _add_events(self, root: Node, began: float, events: list[dict[str, Any]]) -> None:
        """Add the opening and closing of *root* and all in it."""
        frame = self._frame(Frame(root.name))
        events.append({"type": "O", "frame": frame, "at": round(root.start - began, 3)})
        for child in root.children:
            if len(events) >= MOST_EVENTS:
                break
            self._add_events(child, began, events)
        events.append({"type": "C", "frame": frame, "at": round(root.end - began, 3)})

    def _sampled(self, thread: ThreadSamples, frames: Sequence[Frame], interval_s: float) -> dict[str, Any]:
        waits = [self._frame(Frame(WAITS))]
        indexes = [self._frame(frame) for frame in frames]
        stacks = [[indexes[each] for each in stack] for stack in thread.stacks]
        runs = _seen(thread.runs)
        weights = [round(count * interval_s, 6) for _, count in runs]
        return {
            "type": "sampled",
            "name": thread.name,
            "unit": "seconds",
            "startValue": 0,
            "endValue": round(sum(weights), 6),
            "samples": [waits if stack < 0 else stacks[stack] for stack, _ in runs],
            "weights": weights,
        }

    def _frame(self, frame: Frame) -> int:
        key = (frame.name, frame.file, frame.line)
        return self._frames.setdefault(key, len(self._frames))


def _seen(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(stack, count) for stack, count in runs if count > 0]
