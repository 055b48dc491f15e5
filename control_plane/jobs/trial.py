"""Trying a version before it is registered: does it open, does it answer, and what does it answer.

Programs that a person accepted, and bare weights in the network they are said to belong to. Either runs in a
process of its own (`control_plane.jobs.trial_process`) without our environment, with limits, and where the
system allows it without network and our files. What that process says is believed only for this version: it
may be the uploader's program that speaks.
"""

from __future__ import annotations

import math
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import msgspec

from control_plane.admission import judge_process
from control_plane.admission.base import Refusal
from control_plane.admission.reasons import ReasonCode
from control_plane.config import Settings
from control_plane.jobs import processes
from control_plane.jobs.base import Progress
from control_plane.jobs.trial_messages import Order, Outcome
from serving_agent.config import FORCED
from serving_agent.contract.signature import Signature, TensorSpec

TIMEOUT_S: Final = 60.0
"""Longest trial of a small artefact, from start to the last answer, in seconds."""
BYTES_PER_S: Final = 50 * 1024**2
"""A larger one has a second more for each so many bytes."""
REPORT_S: Final = 0.2
MAX_RESULT_BYTES: Final = 1024 * 1024
KEPT_VARIABLES: Final = frozenset({"PATH", "PYTHONPATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ"})
"""The only environment variables a program sees: none that could hold a secret."""
ONE_THREAD: Final = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""Keeps numpy from starting threads when it is imported: only later ones are confined with their process."""
LOG_LINES: Final = 20


@dataclass(frozen=True, slots=True)
class Trial:
    """One program to try."""

    settings: Settings
    format: str
    artifact_dir: Path
    signature: Signature
    memory_bytes: int
    exact: bool = False
    """Whether the file may hold no weights but the network's: bare weights with a config.json."""
    timeout_s: float = TIMEOUT_S
    """Added to it is what reading an artefact of its size takes."""

    @property
    def longest_s(self) -> float:
        """Seconds after which it is given up."""
        return self.timeout_s + judge_process.size_of(self.artifact_dir) // BYTES_PER_S


def run(trial: Trial, progress: Progress) -> Signature:
    """Try the program and return its signature with outputs as measured; -1 where sizes follow the inputs.

    progress: called several times a second, so that a cancelled job ends here too. Raises Refusal.
    """
    with tempfile.TemporaryDirectory(prefix="signalbox-trial-") as folder:
        log_path = Path(folder) / "log"
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb", buffering=0) as pipe:
            try:
                process = _start(trial, Path(folder), log_path, writer)
            finally:
                os.close(writer)
            answer = _Answer(pipe)
            code = _wait(process, answer, trial.longest_s, progress)
        return _judged(trial, code, bytes(answer.said), _tail(log_path))


def _start(trial: Trial, folder: Path, log_path: Path, writer: int) -> subprocess.Popen[bytes]:
    order = msgspec.json.encode(
        Order(
            format=trial.format,
            artifact_dir=str(trial.artifact_dir.absolute()),
            signature=trial.signature,
            memory_bytes=trial.memory_bytes,
            cpu_s=math.ceil(trial.longest_s) * (os.cpu_count() or 1),
            exact=trial.exact,
        )
    )
    environment = {k: v for k, v in trial.settings.child_environment().items() if k in KEPT_VARIABLES}
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  our own interpreter and module
            [sys.executable, "-m", "control_plane.jobs.trial_process", str(writer), str(folder)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**environment, **FORCED, **ONE_THREAD, "HOME": str(folder), "TMPDIR": str(folder)},
            pass_fds=(writer,),
            start_new_session=True,
        )
    if process.stdin:
        try:
            process.stdin.write(order)
            process.stdin.close()
        except BrokenPipeError:
            pass  # its exit code says why
    return process


class _Answer:
    """What the trial says, taken as it comes: a pipe holds little, and who writes more than that waits."""

    def __init__(self, pipe: IO[bytes]) -> None:
        os.set_blocking(pipe.fileno(), False)
        self._pipe = pipe
        self.said = bytearray()
        self.ended = False

    def listen(self, longest_s: float) -> None:
        """Take what is there, or what comes first within *longest_s* seconds."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            selector.select(longest_s)
        chunk = self._pipe.read(MAX_RESULT_BYTES)
        if chunk is not None:
            self.said += chunk[: MAX_RESULT_BYTES - len(self.said)]
            self.ended = not chunk


def _wait(
    process: subprocess.Popen[bytes], answer: _Answer, longest_s: float, progress: Progress
) -> int | None:
    """Return the exit code, or None when the time was up. Nothing of the trial is left running."""
    started = time.monotonic()
    try:
        while (left := started + longest_s - time.monotonic()) > 0:
            code = _exit_code(process, answer, min(REPORT_S, left))
            if code is not None:
                answer.listen(0)
                return code
            progress("try it", 0.3 + 0.5 * (1 - left / longest_s))
        return None
    finally:
        processes.kill_session(process.pid)
        process.wait()


def _exit_code(process: subprocess.Popen[bytes], answer: _Answer, longest_s: float) -> int | None:
    """Listen for a while; return the exit code if the process has ended by then."""
    if not answer.ended:
        answer.listen(longest_s)
        return process.poll()
    try:
        return process.wait(longest_s)
    except subprocess.TimeoutExpired:
        return None


def _judged(trial: Trial, code: int | None, said: bytes, tail: list[str]) -> Signature:
    if code is None:
        raise _refusal(ReasonCode.TIMED_OUT, f"it did not answer within {trial.longest_s:g} s", tail)
    outcome = _decoded(said)
    if code != 0 or outcome is None:
        raise _dead(trial, code, tail)
    if outcome.failed == "memory":
        raise _out_of_memory(trial, tail)
    if outcome.failed is not None:
        raise _refusal(CODES[outcome.failed], outcome.message, tail)
    return _agreed(trial, outcome.outputs)


CODES: Final = {
    "load": ReasonCode.DOES_NOT_LOAD,
    "run": ReasonCode.DOES_NOT_RUN,
    "results": ReasonCode.UNSUPPORTED_RESULTS,
}


def _decoded(said: bytes) -> Outcome | None:
    try:
        return msgspec.json.decode(said, type=Outcome)
    except msgspec.MsgspecError:
        return None


def _dead(trial: Trial, code: int, tail: list[str]) -> Refusal:
    text = "\n".join(tail)
    if code == -signal.SIGKILL or "bad_alloc" in text or "MemoryError" in text:
        return _out_of_memory(trial, tail)
    return _refusal(ReasonCode.CRASHED, processes.death_sentence(code), tail)


def _out_of_memory(trial: Trial, tail: list[str]) -> Refusal:
    limit_mib = trial.memory_bytes // 1024**2
    return _refusal(ReasonCode.OUT_OF_MEMORY, f"it needs more memory than the limit of {limit_mib} MiB", tail)


def _agreed(trial: Trial, measured: tuple[TensorSpec, ...]) -> Signature:
    """Return the signature with its own outputs where it has some, if they agree with what came out."""
    declared = trial.signature.outputs
    if not declared:
        return Signature(inputs=trial.signature.inputs, outputs=measured)
    found = {spec.name: spec for spec in measured}
    for spec in declared:
        other = found.get(spec.name)
        if other is None or other.datatype != spec.datatype or not _covers(spec.shape, other.shape):
            sentence = f"it declares the output {spec} and returned {', '.join(map(str, measured))}"
            raise _refusal(ReasonCode.SIGNATURE_MISMATCH, sentence, [])
    return trial.signature


def _covers(declared: tuple[int, ...], measured: tuple[int, ...]) -> bool:
    if len(declared) != len(measured):
        return False
    return all(ours in (-1, theirs) for ours, theirs in zip(declared, measured, strict=True))


NEXT_STEPS: Final = {
    ReasonCode.TIMED_OUT: "Make sure that loading and one prediction end by themselves, and upload it again.",
    ReasonCode.OUT_OF_MEMORY: "Use a smaller model, or a machine with more memory (SIGNALBOX_AGENT_MEMORY).",
    ReasonCode.DOES_NOT_RUN: "Check the input types and shapes, or run the saved file once yourself.",
    ReasonCode.SIGNATURE_MISMATCH: "Upload it again with outputs as it returns them, or without any.",
    ReasonCode.UNSUPPORTED_RESULTS: "Return a tensor, or a tuple or dict of tensors, and save it again.",
}


def _refusal(code: ReasonCode, why: str, tail: list[str]) -> Refusal:
    last = (
        f" (last line: {tail[-1][:200]})"
        if tail and code in (ReasonCode.CRASHED, ReasonCode.TIMED_OUT)
        else ""
    )
    return Refusal(
        code,
        f"It was tried and failed: {why}{last}",
        NEXT_STEPS.get(
            code, "Run the saved file once yourself with the same version of torch, then upload it again."
        ),
    )


def _tail(log_path: Path) -> list[str]:
    """Return the trial's last lines, and repeat them in the job's log (this process's stderr)."""
    lines = log_path.read_bytes()[-65536:].decode(errors="replace").splitlines()[-LOG_LINES:]
    for line in lines:
        sys.stderr.write(f"  trial: {line}\n")
    return [line for line in lines if line.strip()]
