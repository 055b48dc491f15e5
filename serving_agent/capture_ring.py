"""The newest captures, bounded by number, bytes and age. Pure: the caller brings the time.

What is large goes first: where the bytes do not fit, the oldest captures lose their inputs, then their
outputs' data; what they decided stays until they are crowded out by number or too old.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

from serving_agent.contract.capture import (
    MAX_PAGE_BYTES,
    SMALL_INPUT_BYTES,
    Capture,
    CapturedTensor,
    CapturePage,
    LeftOut,
)

MAX_CAPTURES: Final = 512
MAX_BYTES: Final = 32 * 1024 * 1024
"""Tensor data of all captures."""
KEPT_S: Final = 600.0
"""How long a capture is kept at most."""

Tensors = tuple[CapturedTensor, ...]


class CaptureRing:
    """The captures of one agent, oldest first."""

    def __init__(
        self,
        first_seq: int,
        max_captures: int = MAX_CAPTURES,
        max_bytes: int = MAX_BYTES,
        kept_s: float = KEPT_S,
    ) -> None:
        """*first_seq* must lie above every number given out before, in earlier lives of the agent too."""
        self._captures: deque[Capture] = deque()
        self._next_seq = first_seq
        self._max_captures = max_captures
        self._max_bytes = max_bytes
        self._kept_s = kept_s
        self.size = 0
        """Bytes of tensor data held."""

    def __len__(self) -> int:
        return len(self._captures)

    def put(self, capture: Capture) -> None:
        """Keep *capture* under the next sequence number, in place of the oldest where there is no room."""
        self._captures.append(msgspec.structs.replace(capture, seq=self._next_seq))
        self._next_seq += 1
        self.size += size_of(capture)
        if len(self._captures) > self._max_captures:
            self.size -= size_of(self._captures.popleft())
        if self.size > self._max_bytes:
            self._strip()

    def expire(self, now_s: float) -> None:
        """Drop what is older than `kept_s` at *now_s*, in seconds since the epoch."""
        while self._captures and now_s - self._captures[0].at > self._kept_s:
            self.size -= size_of(self._captures.popleft())

    def page(self, after: int, limit: int, rollout: str = "", *, with_inputs: bool = False) -> CapturePage:
        """Return at most *limit* captures after number *after*, of *rollout* (empty: of any).

        Inputs above SMALL_INPUT_BYTES come without their data unless *with_inputs*; a page ends before
        MAX_PAGE_BYTES of tensor data, but is never empty where there is something.
        """
        page: list[Capture] = []
        last, left = after, MAX_PAGE_BYTES
        for capture in self._after(after):
            shown = capture if with_inputs else _slim(capture)
            if not rollout or capture.rollout == rollout:
                left -= size_of(shown)
                if len(page) >= limit or (page and left < 0):
                    return CapturePage(captures=tuple(page), last=last, more=True)
                page.append(shown)
            last = capture.seq
        return CapturePage(captures=tuple(page), last=last)

    def _after(self, after: int) -> Iterator[Capture]:
        """Yield what comes after number *after*; everything where *after* was never given out here."""
        is_known = after < self._next_seq
        return (capture for capture in self._captures if not is_known or capture.seq > after)

    def _strip(self) -> None:
        """Take data from the oldest captures until the rest fits: all inputs before any outputs."""
        for field in ("inputs", "outputs"):
            for index, capture in enumerate(self._captures):
                if self.size <= self._max_bytes:
                    return
                bare = msgspec.structs.replace(
                    capture, **{field: _without_data(getattr(capture, field), "dropped")}
                )
                self.size -= size_of(capture) - size_of(bare)
                self._captures[index] = bare


def size_of(capture: Capture) -> int:
    """Return the bytes of tensor data in *capture*."""
    return sum(len(tensor.data or b"") for tensor in (*capture.inputs, *capture.outputs))


def _slim(capture: Capture) -> Capture:
    if sum(len(tensor.data or b"") for tensor in capture.inputs) <= SMALL_INPUT_BYTES:
        return capture
    return msgspec.structs.replace(capture, inputs=_without_data(capture.inputs, "page"))


def _without_data(tensors: Tensors, why: LeftOut) -> Tensors:
    return tuple(
        tensor if tensor.data is None else msgspec.structs.replace(tensor, data=None, left_out=why)
        for tensor in tensors
    )
