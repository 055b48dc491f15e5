"""A stand-in for the inspection process: `python -m tests.fakes.inspections FD`.

It does what the handler of its order says: `hang`, `die`, `lie`, `refuse`; with FAKE_INSPECTION=mute it does
not even read the order.
"""

from __future__ import annotations

import os
import signal
import sys

import msgspec

from serving_agent.contract.inspection import InspectionOrder, NotInspected, Progressed


def main() -> None:
    """Misbehave as it is told."""
    pipe = int(sys.argv[1])
    if os.environ.get("FAKE_INSPECTION") == "mute":
        signal.pause()
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=InspectionOrder)
    say(pipe, Progressed(stage="open", done=0.25))
    say(pipe, Progressed(stage="open", done=0.1))
    match order.handler:
        case "hang":
            signal.pause()
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "lie":
            os.write(pipe, b"{\n")
        case "refuse":
            say(pipe, NotInspected(code="no_space", message="the disk is full"))


def say(pipe: int, said: Progressed | NotInspected) -> None:
    """One line."""
    os.write(pipe, msgspec.json.encode(said) + b"\n")


if __name__ == "__main__":
    main()
