"""Processes of the lab: started, asked over a pipe, watched, and ended with all that they started.

They stay in the session of the job that starts them, so whoever kills the job's session kills them too.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

import psutil

BEAT_S: Final = 0.2
"""How often the job may look up from waiting, in seconds."""
PR_SET_PDEATHSIG: Final = 1
PASSIVE: Final = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0", "TOKENIZERS_PARALLELISM": "false"}
"""Keeps threads that wait from taking the processor from the side that is measured."""


class ChildError(Exception):
    """A process of the lab ended, or took too long; `code` is a reason code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Child:
    """One process: `python -m MODULE FD`, told by lines on its stdin, answering by lines on the pipe FD."""

    def __init__(self, module: str, environment: Mapping[str, str]) -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        self._reader = reader
        self._said = bytearray()
        try:
            self._process = subprocess.Popen(  # noqa: S603  our own interpreter and module
                [sys.executable, "-m", module, str(writer)],
                stdin=subprocess.PIPE,
                env={**environment, **PASSIVE},
                pass_fds=(writer,),
            )
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def tell(self, line: bytes, *, last: bool = False) -> None:
        """Send one line; *last* closes its stdin. A process that died meanwhile is told by `hear`."""
        pipe = self._process.stdin
        if pipe is None or pipe.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            pipe.write(line + b"\n")
            pipe.flush()
        if last:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def hear(self, beat: Callable[[], None], timeout_s: float) -> bytes:
        """Return its next line. *beat* is called several times a second and may raise to end the wait.

        Raises ChildError when it ended without a word or the time is up.
        """
        until = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            while b"\n" not in self._said:
                beat()
                if time.monotonic() > until:
                    raise ChildError("timed_out", f"it did not answer within {timeout_s:.0f} s")
                if selector.select(BEAT_S) and not self._read():
                    raise self._death()
        line, _, rest = bytes(self._said).partition(b"\n")
        self._said = bytearray(rest)
        return line

    def end(self) -> None:
        """Kill it and what it started, and wait until it is gone. Idempotent."""
        for process in self._family():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.wait()
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1

    def _family(self) -> list[psutil.Process]:
        try:
            process = psutil.Process(self._process.pid)
            return [*process.children(recursive=True), process]
        except psutil.Error:
            return []

    def _read(self) -> bool:
        """Take what is there; False at the end of the pipe."""
        chunk = os.read(self._reader, 65536)
        self._said += chunk
        return bool(chunk)

    def _death(self) -> ChildError:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return ChildError(
                "out_of_memory", "its process was killed: most likely the machine ran out of memory"
            )
        if code < 0:
            return ChildError("crashed", f"its process crashed ({signal.Signals(-code).name})")
        return ChildError("crashed", f"its process ended with exit code {code}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether *error* says that memory ran out, in Python's words, torch's or an engine's."""
    text = str(error)
    signs = (
        "can't allocate memory",
        "bad_alloc",
        "not enough memory",
        "DefaultCPUAllocator",
        "Failed to allocate memory",
    )
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)


def die_with_parent() -> None:
    """Have Linux kill this process when the one that started it dies."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
