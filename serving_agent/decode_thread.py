"""The one thread that reads requests whose reading takes long, so that the I/O loop answers on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from serving_agent.errors import QueueFullError

T = TypeVar("T")


class DecodeThread:
    """Runs one decoding after another; lives on the I/O loop's thread."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._waiting = 0
        # one thread, begun with the first large request: Python runs no two decodings at once
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="decode")

    def run(self, decode: Callable[[], T]) -> asyncio.Future[T]:
        """Return what *decode* will; cancelling drops it if it has not begun. Raises QueueFullError."""
        if self._waiting >= self._max_waiting:
            raise QueueFullError(f"{self._waiting} large requests are waiting already; try again later")
        self._waiting += 1
        decoding = asyncio.get_running_loop().run_in_executor(self._executor, decode)
        decoding.add_done_callback(self._ended)
        return decoding

    def _ended(self, _: asyncio.Future[T]) -> None:
        self._waiting -= 1
