"""Continuous closed-loop load on one URL, with every answer checked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import httpx


class Load:
    """Threads that send one request after another until the `with` block ends.

    check: called with every parsed answer; what it raises is a failure. After the block, `failures` holds one
    sentence per failed request and `answered` the number of good ones.
    """

    def __init__(
        self, url: str, body: dict[str, Any], check: Callable[[dict[str, Any]], None], threads: int = 4
    ) -> None:
        self.url = url
        self.body = body
        self.check = check
        self.answered = 0
        self.failures: list[str] = []
        self._progress = threading.Condition()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        self.wait_for_more(20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(30)

    def wait_for_more(self, count: int, timeout_s: float = 30) -> None:
        """Return once *count* more requests have been answered: traffic really flows now."""
        with self._progress:
            wanted = self.answered + count
            assert self._progress.wait_for(lambda: self.answered >= wanted, timeout_s), self.failures[-3:]

    def _run(self) -> None:
        with httpx.Client(timeout=30) as client:
            while not self._ending.is_set():
                self._send(client)

    def _send(self, client: httpx.Client) -> None:
        started = time.monotonic()
        try:
            answer = client.post(self.url, json=self.body)
            if answer.status_code != 200:
                raise AssertionError(f"{answer.status_code}: {answer.text[:300]}")
            self.check(answer.json())
        except (httpx.HTTPError, AssertionError, KeyError) as problem:
            with self._progress:
                self.failures.append(
                    f"after {time.monotonic() - started:.3f} s: {type(problem).__name__} {problem}"
                )
        else:
            with self._progress:
                self.answered += 1
                self._progress.notify_all()
