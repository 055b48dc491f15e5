"""The process one side is measured in: `python -m control_plane.optimization.measure_process FD`.

Commands come as lines on stdin, answers go as lines to the pipe FD; the first command opens the artefact
exactly as an agent would. While the other side is measured it waits for its next line, using no processor.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from control_plane.optimization import answers, holdout, serving
from control_plane.optimization.children import die_with_parent, is_out_of_memory
from control_plane.optimization.messages import (
    Answer,
    Answered,
    Command,
    Failed,
    HoldoutRow,
    Open,
    Opened,
    Said,
    Time,
    Timed,
)
from serving_agent.datatypes import Array
from serving_agent.model_server import ModelServer

OPEN_SIZE: Final = 16
"""Size of made-up rows where the signature leaves one open."""
ANSWER_ROWS: Final = 16
"""Rows answered at once."""
LEAST_CALLS: Final = 2
MOST_CALLS: Final = 10_000
PATIENCE: Final = 4
"""How many times as long as asked for it goes on while other processes interrupt every call."""
TOKENS: Final = "input_ids"


def main() -> int:
    """Obey commands until stdin ends. Returns the exit code."""
    pipe = int(sys.argv[1])
    os.set_inheritable(pipe, False)
    die_with_parent()
    side: Side | None = None
    for line in sys.stdin.buffer:
        command = msgspec.json.decode(line, type=Command)
        said: Said = Failed(code="does_not_run", message="nothing is open")
        try:
            if isinstance(command, Open):
                side = Side(command)
                said = side.opened
            elif side is not None:
                said = side.obey(command)
        except Exception as error:  # noqa: BLE001  an edge: whatever a model raises is told to the job
            traceback.print_exc()
            said = failure(error)
        os.write(pipe, msgspec.json.encode(said) + b"\n")
    return 0


def failure(error: Exception) -> Failed:
    """*error* as one sentence and a code."""
    if is_out_of_memory(error):
        return Failed(code="out_of_memory", message="it needs more memory than it may use")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else "no message"
    return Failed(code="does_not_run", message=f"{type(error).__name__}: {said}"[:500])


class Side:
    """One opened artefact."""

    def __init__(self, order: Open) -> None:
        import torch

        os.sched_setaffinity(0, order.cores)
        torch.set_num_threads(order.threads)
        self._before = reset_peak()
        started = time.perf_counter()
        self._server: ModelServer = serving.opened(order.artefact)
        load_s = time.perf_counter() - started
        self._signature = self._server.signature()
        self._rows = order.rows or holdout.made_up(self._server.sample_inputs(OPEN_SIZE))
        self._prepared: dict[int, Mapping[str, Any]] = {}
        self.opened = Opened(load_s=load_s, rows=len(self._rows))

    def obey(self, command: Time | Answer) -> Said:
        """Carry out one command."""
        return self._time(command) if isinstance(command, Time) else self._answer(command)

    def _time(self, command: Time) -> Timed:
        """Time the model alone: inputs are prepared once, outputs are left where they are."""
        import torch

        prepared = self._batch(command.rows)
        with torch.inference_mode():
            calls = timed_calls(lambda: self._server.predict(prepared), command.seconds)
        quiet = [seconds for seconds, interrupted in calls if not interrupted]
        return Timed(
            median_s=typical(calls),
            calls=len(calls),
            quiet=len(quiet) / len(calls),
            tokens=_tokens(prepared),
            memory_bytes=self._memory(),
        )

    def _batch(self, rows: int) -> Mapping[str, Any]:
        import torch

        if rows not in self._prepared:
            chosen = holdout.batch(self._rows, self._signature, rows)
            with torch.inference_mode():
                self._prepared[rows] = self._server.preprocess(self._arrays(chosen))
        return self._prepared[rows]

    def _answer(self, command: Answer) -> Answered:
        """Answer every row, a few at a time, through all of the handler's hooks."""
        given = answers.Given.empty(len(self._rows))
        for group in holdout.groups(self._rows, self._signature):
            for chunk in holdout.chunks(group, ANSWER_ROWS):
                self._answer_chunk(chunk, given)
        answers.write(given, Path(command.out))
        return Answered(memory_bytes=self._memory())

    def _answer_chunk(self, chunk: Sequence[int], given: answers.Given) -> None:
        import torch

        with torch.inference_mode():
            prepared = self._server.preprocess(self._arrays([self._rows[index] for index in chunk]))
            predicted = self._server.predict(prepared)
            raw = {name: _array(value) for name, value in predicted.items() if hasattr(value, "shape")}
            served = self._server.postprocess(predicted)
        given.add(chunk, raw, served, self._signature, self._server.context.labels)

    def _arrays(self, rows: Sequence[HoldoutRow]) -> dict[str, Array]:
        return serving.batch_of([row.inputs for row in rows], self._signature)

    def _memory(self) -> int:
        return max(0, peak_bytes() - self._before)


def timed_calls(call: Callable[[], object], seconds: float) -> list[tuple[float, bool]]:
    """Call again and again; return each call's seconds and whether another process interrupted it.

    Takes *seconds*, and longer, up to PATIENCE times, while there are too few calls without interruption.
    """
    calls: list[tuple[float, bool]] = []
    undisturbed = 0
    begun = time.perf_counter()
    while len(calls) < MOST_CALLS:
        switches = _involuntary_switches()
        started = time.perf_counter()
        call()
        ended = time.perf_counter()
        interrupted = _involuntary_switches() > switches
        calls.append((ended - started, interrupted))
        undisturbed += not interrupted
        enough = undisturbed if ended - begun < PATIENCE * seconds else len(calls)
        if ended - begun >= seconds and enough >= LEAST_CALLS:
            break
    return calls


def typical(calls: Sequence[tuple[float, bool]]) -> float:
    """Seconds of a call that nobody interrupts: the median of those that nobody did.

    Where there are too few of them, the lower quartile of all: interruptions only ever make a call longer.
    """
    quiet = [seconds for seconds, interrupted in calls if not interrupted]
    if len(quiet) >= LEAST_CALLS:
        return statistics.median(quiet)
    return statistics.quantiles([seconds for seconds, _ in calls], n=4, method="inclusive")[0]


def _involuntary_switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _array(tensor: Any) -> Array:
    held = tensor.detach().cpu()
    made: Array = (held.float() if held.dtype.is_floating_point else held).numpy()
    return made


def _tokens(prepared: Mapping[str, Any]) -> int:
    return int(np.prod(prepared[TOKENS].shape)) if TOKENS in prepared else 0


def reset_peak() -> int:
    """Forget this process's peak memory, where Linux allows it; returns what is resident now, in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return peak_bytes()
    return _status("VmRSS")


def peak_bytes() -> int:
    """This process's largest resident memory, in bytes."""
    return _status("VmHWM")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


if __name__ == "__main__":
    raise SystemExit(main())
