"""Servers as child processes: pinned to a core, logged to a file, and gone with all their children."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 10.0
POLL_S: Final = 0.02
LOG_TAIL: Final = 3000

ONE_THREAD: Final = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}
"""Environment that keeps every numeric library at one thread."""


class StartError(RuntimeError):
    """A server did not come up; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server process and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def tail(self) -> str:
        """Return the last LOG_TAIL characters of the log."""
        return self.log.read_text(errors="replace")[-LOG_TAIL:]

    def wait_until(self, ready: Callable[[], bool], timeout_s: float = START_TIMEOUT_S) -> None:
        """Return once *ready* says so; OSError from it means not yet. Raises StartError."""
        deadline = time.monotonic() + timeout_s
        while not _holds(ready):
            if self.process.poll() is not None:
                raise StartError(f"exited with {self.process.returncode}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"not ready after {timeout_s:.0f} s:\n{self.tail()}")
            time.sleep(POLL_S)


def _holds(ready: Callable[[], bool]) -> bool:
    try:
        return ready()
    except (OSError, urllib.error.URLError):
        return False


@contextlib.contextmanager
def running(
    command: Sequence[object],
    *,
    folder: Path,
    core: int,
    environment: Mapping[str, str] | None = None,
    name: str = "server",
) -> Iterator[Server]:
    """Run *command* in *folder* on *core*, one numeric thread; it and all its children end with the block.

    environment: added to this process's own. The log is `<name>.log` in *folder*.
    """
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", str(core), *map(str, command)],
            cwd=folder,
            env=_clean_environment() | ONE_THREAD | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Server(process, log)
    finally:
        _end(process)


def _clean_environment() -> dict[str, str]:
    """This process's environment without what leads into our own virtual environment."""
    ours = ("PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and whatever it started: LitServe's and BentoML's children outlive their parent."""
    family = _family(process.pid)
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=STOP_TIMEOUT_S)
    for member in {*alive, *_session(process.pid)}:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)
    process.wait()


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _session(session: int) -> list[psutil.Process]:
    """Return the processes of the session that a server began, orphans included."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getsid(process.pid) == session:
                members.append(process)
    return members


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nothing listens on, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def answers(url: str) -> bool:
    """Tell whether GET *url* is answered 200; OSError when nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except urllib.error.HTTPError:
        return False


def listens(port: int) -> bool:
    """Tell whether somebody accepts connections on 127.0.0.1:*port*."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
