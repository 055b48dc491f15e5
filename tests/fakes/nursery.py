"""Serving agents that are born with torch imported: forked from one process that has imported it for all.

For tests of what comes after the start, with many agents. Each is a process of its own, and from its
arguments on it runs what `python -m serving_agent` runs.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
POLL_S = 0.01


class Ward:
    """A forked agent, with what tests use of `subprocess.Popen`."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._nursery.ask("poll", self.pid)
        return self.returncode

    def wait(self, timeout: float = 60.0) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(POLL_S)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:  # its parent has not collected it: the pid is still its own
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks them."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self, manifest: Path, log: Path) -> Ward:
        """An agent for the *manifest* file that writes to *log*."""
        pid = self.ask("begin", str(manifest), str(log))
        assert pid is not None
        return Ward(self, pid)

    def ask(self, *order: str | int) -> int | None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer: int | None = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def opened() -> Iterator[Nursery]:
    """A nursery; whoever is begun in it must have ended when the block is left."""
    command = [sys.executable, "-m", "tests.fakes.nursery"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Nursery(process)
        process.communicate(timeout=60)
    assert process.returncode == 0


def serve() -> None:
    """Import what agents import, then fork one for each order; poll: the exit code, None while it runs."""
    from serving_agent import config

    config.prepare_environment(1)
    import torch  # noqa: F401

    from serving_agent import agent, startup  # noqa: F401

    for line in sys.stdin:
        what, *given = json.loads(line)
        print(json.dumps(_begin(*given) if what == "begin" else _poll(*given)), flush=True)


def _begin(manifest: str, log: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        for end, path, flags in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY | os.O_CREAT)):
            opened_as = os.open(path, flags, 0o600)
            os.dup2(opened_as, end)
            os.close(opened_as)
        os.dup2(1, 2)
        sys.argv = ["serving_agent", "--manifest", manifest]
        runpy.run_module("serving_agent", run_name="__main__", alter_sys=True)
    except BaseException:  # noqa: BLE001  whatever it is, this process must not go on as a second nursery
        traceback.print_exc()
    finally:
        os._exit(1)


def _poll(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


if __name__ == "__main__":
    serve()
