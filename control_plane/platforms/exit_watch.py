"""Wakes somebody when one of some processes ends, without asking again and again (Linux pidfd)."""

from __future__ import annotations

import os
import selectors
import threading
from collections.abc import Callable, Iterable


class ExitWatch:
    """A thread that sleeps until one of the followed processes ends, then calls back."""

    def __init__(self, on_exit: Callable[[], None]) -> None:
        self._on_exit = on_exit
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = os.pipe()
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._lock = threading.Lock()
        self._followed: dict[int, int] = {}

    @classmethod
    def start(cls, on_exit: Callable[[], None]) -> ExitWatch | None:
        """Start watching; None where the system cannot say when another process ends."""
        if not hasattr(os, "pidfd_open"):
            return None
        watch = cls(on_exit)
        threading.Thread(target=watch._run, name="exit-watch", daemon=True).start()
        return watch

    def follow(self, pids: Iterable[int]) -> None:
        """Follow these processes too; those that are gone already are left out."""
        with self._lock:
            for pid in pids:
                if pid not in self._followed:
                    self._add(pid)

    def _add(self, pid: int) -> None:
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            return
        self._followed[pid] = handle
        self._selector.register(handle, selectors.EVENT_READ, pid)
        os.write(self._wake_in, b".")

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    os.read(self._wake_out, 4096)
                else:
                    self._ended(key.data)

    def _ended(self, pid: int) -> None:
        with self._lock:
            handle = self._followed.pop(pid)
            self._selector.unregister(handle)
            os.close(handle)
        self._on_exit()
