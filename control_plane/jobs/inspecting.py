"""One version inspected on one input: a process of its own, with little priority and within its limits."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import psutil

from control_plane.domain.views import Reason
from control_plane.optimization.children import Child, ChildError
from serving_agent.contract.inspection import InspectionOrder, NotInspected, Progressed, Said

MODULE: Final = "serving_agent.inspection"
NICENESS: Final = 10
"""Serving agents go before it."""
FIRST_TO_GO: Final = "1000"
"""Linux ends it before anything else where there is no memory left (see proc(5), `oom_score_adj`)."""
THREADS: Final = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
NEXT_STEPS: Final = {
    "timed_out": "Raise SIGNALBOX_DEBUG_TIMEOUT_S, or use a smaller input.",
    "out_of_memory": "Use a smaller input, end what takes the memory, or raise SIGNALBOX_AGENT_MEMORY.",
    "no_space": "Delete debugger runs or versions, then run it again.",
    "edit_refused": "Run it without the edit: it lists all layers, their tensors and shapes.",
    "cannot_open": "See the job's log: the version cannot be opened.",
}
_SEE_LOG: Final = "See the job's log."

Share = Callable[[float], None]
"""Told the done share in [0, 1], several times a second; may raise to end it all."""


class NotInspectedError(Exception):
    """There is nothing to show, for `reason`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.message)
        self.reason = reason


def inspect(
    order: InspectionOrder,
    environment: Mapping[str, str],
    share: Share,
    timeout_s: float,
    *,
    module: str = MODULE,
) -> None:
    """Have the order's folder filled. timeout_s: longest wall time of it all; module: what is run.

    Raises NotInspectedError, and what *share* raises; no process is left in any case.
    """
    child = Child(module, {**environment, **THREADS})
    teller = threading.Thread(target=_tell, args=(child, msgspec.json.encode(order)), daemon=True)
    try:
        yield_to_others(child.pid)
        teller.start()  # beside: one that hangs before it reads must not keep us from looking at the clock
        _follow(child, share, timeout_s)
    finally:
        child.end()
        teller.join()


def _tell(child: Child, order: bytes) -> None:
    with contextlib.suppress(ValueError):  # its stdin was closed: it was ended meanwhile
        child.tell(order, last=True)


def _follow(child: Child, share: Share, timeout_s: float) -> None:
    until, done = time.monotonic() + timeout_s, 0.0
    while True:
        left = until - time.monotonic()
        try:
            said = msgspec.json.decode(child.hear(lambda: share(done), left), type=Said)  # noqa: B023  at once
        except ChildError as error:
            raise NotInspectedError(_reason(error.code, _sentence(error, timeout_s))) from error
        except msgspec.MsgspecError as error:
            raise NotInspectedError(
                _reason("inspection_failed", f"it answered what is none: {error}")
            ) from error
        if isinstance(said, NotInspected):
            raise NotInspectedError(_reason(said.code, said.message))
        if not isinstance(said, Progressed):
            return
        done = min(1.0, max(done, said.done))


def yield_to_others(pid: int) -> None:
    """Let everything else go first, on the processor and on the disk, and live longer where memory is short.

    A process that is gone needs none of it.
    """
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(FIRST_TO_GO, "ascii")
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, max(NICENESS, os.getpriority(os.PRIO_PROCESS, pid)))
    if hasattr(psutil, "IOPRIO_CLASS_BE"):
        with contextlib.suppress(psutil.Error, OSError):
            psutil.Process(pid).ionice(psutil.IOPRIO_CLASS_BE, 7)  # last, but not starved as an idle one is


def _sentence(error: ChildError, timeout_s: float) -> str:
    if error.code == "timed_out":
        return f"it was not inspected within {timeout_s:g} s"
    return str(error)


def _reason(code: str, message: str) -> Reason:
    return Reason(code, message, NEXT_STEPS.get(code, _SEE_LOG))
