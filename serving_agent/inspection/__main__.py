"""`python -m serving_agent.inspection FD`: carry out the order on stdin, and say on the pipe FD how it goes.

Exit code 0 once the answer is said, 2 for wrong usage. It dies with the process that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from serving_agent import config, limits, log, scratch
from serving_agent.contract.inspection import InspectionOrder, NotInspected, Said

EXIT_USAGE: Final = 2
PR_SET_PDEATHSIG: Final = 1


def main() -> int:
    """Read the order, inspect, and say what came of it. Returns the exit code."""
    if len(sys.argv) != 2 or not sys.argv[1].isdecimal():
        sys.stderr.write("usage: python -m serving_agent.inspection FD\n")
        return EXIT_USAGE
    pipe = int(sys.argv[1])
    os.set_inheritable(pipe, False)
    die_with_parent()
    log.configure()
    try:
        order = msgspec.json.decode(sys.stdin.buffer.read(), type=InspectionOrder)
    except msgspec.MsgspecError as error:
        say(pipe, NotInspected(code="inspection_failed", message=f"the order cannot be read: {error}"))
        return 0
    said = answer(order, pipe)
    scratch.remove()  # before it is said: whoever hears the last word may end this process
    say(pipe, said)
    return 0


def answer(order: InspectionOrder, pipe: int) -> Said:
    """Inspect under the order's limits."""
    config.prepare_environment(order.threads)
    scratch.keep_in(Path(order.out))
    try:
        from serving_agent.inspection import inspecting  # after the environment is set: it imports numpy
        from serving_agent.startup import import_torch

        import_torch(order.threads)
        limits.limit_memory(order.memory_bytes)
        return inspecting.inspect(order, lambda said: say(pipe, said))
    except MemoryError:
        limits.lift()
        return NotInspected(code="out_of_memory", message=limits.memory_sentence(order.memory_bytes))
    finally:
        limits.lift()  # what is left to say needs some too


def say(pipe: int, said: Said) -> None:
    """Write one line; nobody may be there any more to read it."""
    with contextlib.suppress(BrokenPipeError):
        os.write(pipe, msgspec.json.encode(said) + b"\n")


def die_with_parent() -> None:
    """Have Linux kill this process when the one that started it dies."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    code = main()
    with contextlib.suppress(OSError):  # a full disk must not keep the process from ending
        sys.stdout.flush()
    os._exit(code)  # taking torch and the engines apart takes seconds and tells nothing
