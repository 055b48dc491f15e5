"""The process that profiles one version: `python -m serving_agent.profiling FD`.

The order comes as JSON on stdin; how far it is, and that the files are written, goes to the pipe FD as lines
of JSON. It dies with the process that started it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from typing import Final

import msgspec

from serving_agent import config
from serving_agent.contract.profile import Profiled, ProfileOrder, Progressed, Said

PR_SET_PDEATHSIG: Final = 1
DEEPEST: Final = 20_000
"""Recursion of Python code while trees of deep stacks are walked."""


def main() -> int:
    """Carry out the order on stdin. Returns the exit code: 0 once the answer is sent."""
    pipe = int(sys.argv[1])
    os.set_inheritable(pipe, False)
    die_with_parent()
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=ProfileOrder)
    config.prepare_environment(order.threads)
    say(pipe, answer(order, pipe))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # taking torch apart takes seconds and tells nothing


def answer(order: ProfileOrder, pipe: int) -> Said:
    """Profile, and say that the report is written or why there is none."""
    from serving_agent import limits, startup
    from serving_agent.profiling.failures import failure
    from serving_agent.profiling.session import Session  # after the environment is set: they import numpy

    sys.setrecursionlimit(DEEPEST)
    try:
        say(pipe, Progressed(stage="import torch", done=0.0))
        startup.import_torch(order.threads)
        limits.limit_memory(order.memory_bytes)
        Session(order, lambda stage, done: say(pipe, Progressed(stage=stage, done=done))).run()
    except BaseException as error:  # noqa: BLE001 - an edge: whatever a model raises is told to the job
        limits.lift()
        traceback.print_exc()
        return failure(error)
    return Profiled()


def say(pipe: int, said: Said) -> None:
    """Tell the job; one that has gone is no reason to fail: this process goes with it."""
    try:
        os.write(pipe, msgspec.json.encode(said) + b"\n")
    except BrokenPipeError:
        os._exit(1)


def die_with_parent() -> None:
    """Have Linux kill this process when the one that started it dies."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    raise SystemExit(main())
