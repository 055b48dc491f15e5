"""One profile taken for a job: of a version in a process of its own, or of a live agent that is asked."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from control_plane import agent_client
from control_plane.agent_client import AgentBusyError
from control_plane.domain.profile import LONGEST_LIVE_S, ProfileOrder
from control_plane.domain.views import Reason
from control_plane.jobs.base import JobFailedError, Progress
from control_plane.jobs.inspecting import yield_to_others
from control_plane.optimization.children import Child, ChildError
from control_plane.socket_http import NoAnswerError
from serving_agent.contract import profile as contract
from serving_agent.contract.profile import (
    KeyFigures,
    LiveOrder,
    LiveProfile,
    NotProfiled,
    Progressed,
    Report,
    Said,
)
from serving_agent.profiling.speedscope import File
from serving_agent.profiling.views import flames_of, largest

MODULE: Final = "serving_agent.profiling"
OPEN_S: Final = 300.0
"""Longest wait for a version to open and answer once."""
PATIENCE: Final = 6.0
"""How many times as long as asked for a profiler may take with all that it has to read."""
BEAT_S: Final = 0.2
NEXT_STEPS: Final = {
    "timed_out": "Ask for fewer requests, fewer profilers or smaller batches.",
    "out_of_memory": "Use smaller batches, or raise SIGNALBOX_AGENT_MEMORY.",
    "no_space": "Delete profiles or versions, then take it again.",
    "cannot_open": "See the job's log: the version cannot be opened.",
    "does_not_run": "Choose other inputs or another batch size; the job's log tells more.",
    "agent_busy": "Wait until the other profile has ended.",
    "no_requests": "Send requests to the endpoint while the profile is taken, or give it more time.",
    "agent_silent": "See that the endpoint is running, then take it again.",
}
_SEE_LOG: Final = "See the job's log."


def failed(code: str, message: str) -> JobFailedError:
    """The job's failure, with what to do about it."""
    return JobFailedError(Reason(code, message, NEXT_STEPS.get(code, _SEE_LOG)))


# -- a version ---------------------------------------------------------------------------------------------


def of_version(
    order: contract.ProfileOrder, environment: Mapping[str, str], progress: Progress, *, module: str = MODULE
) -> Report:
    """Have the order's folder filled, and return its report. *module*: what is run.

    Raises JobFailedError, and what *progress* raises; no process is left in any case.
    """
    child = Child(module, environment)
    teller = threading.Thread(target=_tell, args=(child, msgspec.json.encode(order)), daemon=True)
    try:
        yield_to_others(child.pid)
        teller.start()  # beside: one that hangs before it reads must not keep us from looking at the clock
        _follow(child, longest_s(order), progress)
    finally:
        child.end()
        teller.join()
    return msgspec.json.decode((Path(order.out) / contract.REPORT).read_bytes(), type=Report)


def _tell(child: Child, order: bytes) -> None:
    with contextlib.suppress(ValueError):  # its stdin was closed: it was ended meanwhile
        child.tell(order, last=True)


def _follow(child: Child, timeout_s: float, progress: Progress) -> None:
    until, stage, done = time.monotonic() + timeout_s, "start", 0.0
    while True:
        left = until - time.monotonic()
        try:
            line = child.hear(lambda: progress(stage, done), left)  # noqa: B023  it is called at once
            said = msgspec.json.decode(line, type=Said)
        except ChildError as error:
            raise failed(error.code, str(error)) from error
        except msgspec.MsgspecError as error:
            raise failed("profiling_failed", f"it answered what is none: {error}") from error
        if isinstance(said, NotProfiled):
            raise failed(said.code, said.message)
        if not isinstance(said, Progressed):
            return
        stage, done = said.stage, min(1.0, max(done, said.done))
        progress(stage, done)


def longest_s(order: contract.ProfileOrder) -> float:
    """Return after how long a profile is given up, in seconds."""
    turns = len(order.take) + (len(order.sweep) if "sweep" in order.take else 0)
    return OPEN_S + PATIENCE * order.seconds * (1 + turns)


# -- a live agent ------------------------------------------------------------------------------------------


def of_agent(
    address: str, order: ProfileOrder, threads: int, device: str, out: Path, progress: Progress
) -> Report:
    """Profile the agent at *address* while it serves, and fill *out*.

    When this process ends, so does the agent's profile: it notices that nobody waits any more. Raises
    JobFailedError, and what *progress* raises.
    """
    wish = order.wish
    live = LiveOrder(requests=wish.requests, seconds=min(wish.seconds, LONGEST_LIVE_S), rate_hz=wish.rate_hz)
    answer = _asked(address, live, lambda done: progress("watch the agent", done))
    if answer.requests == 0:
        raise failed(
            "no_requests",
            f"no request was answered by the model within {answer.seconds:.3g} s"
            + (f", and {answer.failed} failed" if answer.failed else ""),
        )
    report = report_of(answer, threads, device)
    file = File(f"{order.ref} at {order.endpoint}")
    file.add_samples(answer.samples)
    content = file.content()
    if content is not None:
        (out / contract.SPEEDSCOPE).write_bytes(msgspec.json.encode(content))
    (out / contract.REPORT).write_bytes(msgspec.json.encode(report))
    return report


def report_of(live: LiveProfile, threads: int, device: str) -> Report:
    """What a live agent said, as a report."""
    flames = sorted(flames_of(live.samples), key=lambda flame: not flame.name.endswith("inference"))
    predict = next((stage.p50_s for stage in live.stages if stage.name == "predict"), None)
    notes = [
        "A live agent is sampled: operators and layers are told by profiles of its version alone",
        *(
            ["A bound on memory was reached: some stacks count as their outer frames"]
            if live.samples.cut
            else []
        ),
        *(
            [
                f"{live.unwritten} of {live.requests} requests came by gRPC: the stage of writing the answer "
                "leaves them out"
            ]
            if live.unwritten
            else []
        ),
        *([f"{live.failed} requests got no answer from the model meanwhile"] if live.failed else []),
        f"The profiler held the interpreter for {live.overhead:.2%} of the time",
    ]
    report = Report(
        source="agent",
        key=KeyFigures(
            requests=live.requests,
            batch=0,
            wall_s=live.total.p50_s if live.total else 0.0,
            rows_per_s=live.rows / live.seconds if live.seconds > 0 else None,
            predict_s=predict,
            peak_bytes=live.peak_bytes,
            device=device,
            threads=threads,
        ),
        stages=live.stages,
        total=live.total,
        flames=tuple(flames),
        overheads=(),
        notes=tuple(notes),
        seconds=live.seconds,
    )
    name, share = largest(report)
    return msgspec.structs.replace(report, key=msgspec.structs.replace(report.key, top=name, top_share=share))


def _asked(address: str, order: LiveOrder, share: Callable[[float], None]) -> LiveProfile:
    """Ask the agent on a thread, and tell how far it is meanwhile."""
    answers: list[LiveProfile | Exception] = []

    def ask() -> None:
        try:
            answers.append(agent_client.profile(address, order))
        except Exception as error:  # noqa: BLE001 - told below, on the job's own thread
            answers.append(error)

    asking = threading.Thread(target=ask, name="profile-agent", daemon=True)
    asking.start()
    began = time.monotonic()
    while asking.is_alive():
        share(min(0.95, (time.monotonic() - began) / order.seconds))
        asking.join(BEAT_S)
    (answer,) = answers
    if isinstance(answer, AgentBusyError):
        raise failed("agent_busy", str(answer)) from answer
    if isinstance(answer, NoAnswerError):
        raise failed("agent_silent", f"the agent did not answer: {answer}") from answer
    if isinstance(answer, Exception):
        raise answer
    return answer
