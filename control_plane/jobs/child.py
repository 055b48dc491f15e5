"""The process of one job, as the worker holds it: started ahead, given its order later."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from control_plane.config import Settings
from control_plane.jobs import processes
from control_plane.services.jobs import ClaimedJob


class Child:
    """A started process of `control_plane.jobs.run`, leader of its own session."""

    def __init__(self, settings: Settings) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "control_plane.jobs.run"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=settings.child_environment(),
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.started_at = processes.started_at(self.pid) or 0.0

    def give(self, job: ClaimedJob) -> None:
        """Hand over the order. A process that died meanwhile is noticed by `exit_code`."""
        pipe = self._process.stdin
        if pipe is None:
            return
        try:
            pipe.write(msgspec.json.encode(job) + b"\n")
            pipe.close()
        except BrokenPipeError:
            return

    def exit_code(self) -> int | None:
        """Return how it ended (negative: minus the signal), or None while it runs; reaps it."""
        return self._process.poll()

    def kill(self) -> None:
        """Kill it and what it started, and wait until it is gone."""
        processes.kill_session(self.pid)
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()
