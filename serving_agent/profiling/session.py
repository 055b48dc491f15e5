"""One profile of a version, from opening it to its report."""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from serving_agent.contract import profile as contract
from serving_agent.contract.profile import KeyFigures, Overhead, ProfileOrder, Report
from serving_agent.profiling import functions, memory, operators, sweep, turns
from serving_agent.profiling.failures import failure
from serving_agent.profiling.knee import knee
from serving_agent.profiling.operators import Traced
from serving_agent.profiling.sampler import Sampler
from serving_agent.profiling.speedscope import File
from serving_agent.profiling.subject import Asked, Subject
from serving_agent.profiling.timings import times
from serving_agent.profiling.turns import Turns
from serving_agent.profiling.views import SAMPLES, flames_of, largest

WARM_UPS: Final = 3
PLAIN_REQUESTS: Final = 30
"""Plain requests that the key figures and stages rest on, at least, where time allows."""
SWITCH_S: Final = 0.0002
"""How soon Python code lets the sampler look, in seconds: else it would be seen where it waits anyway."""
LOW_PRIORITY: Final = (
    "It ran at low priority, so that serving agents go first: on a busy machine its times are longer"
)
LIBRARIES: Final = ("torch", "transformers", "onnxruntime", "openvino", "torchao")

Tell = Callable[[str, float], None]
"""Told what is being done and the done share of the whole."""


class Session:
    """Profiles one version as one order says."""

    def __init__(self, order: ProfileOrder, tell: Tell) -> None:
        self._order = order
        self._tell = tell
        self._out = Path(order.out)
        self._report = Report(source="version", key=KeyFigures(requests=0, batch=order.batch, wall_s=0.0))
        self._file = File(order.folder.rpartition("/")[2])

    def run(self) -> Report:
        """Take all that is asked for, write the files, and return the report.

        Raises StartError and InvalidRequestError where the version or the rows do not fit, and what the
        model raises.
        """
        began = time.perf_counter()
        order = self._order
        self._tell("open the version", 0.0)
        subject = Subject(order)
        batch = order.batch if subject.is_batchable else 1
        inputs = subject.inputs(batch)

        def ask() -> Asked:
            return subject.ask(inputs)

        self._tell("warm up", 0.1)
        turns.repeat(ask, WARM_UPS, order.seconds)
        self._plain(subject, ask, batch)
        steps = [take for take in contract.TAKES if take in order.take]
        for at, step in enumerate(steps):
            done = 0.2 + 0.7 * at / len(steps)
            self._tell(f"take {step}", done)
            self._try(step, partial(self._take, step, subject, ask, done, 0.7 / len(steps)))
        self._tell("write the report", 0.92)
        self._finish(time.perf_counter() - began)
        return self._report

    def _set(self, **changes: object) -> None:
        self._report = msgspec.structs.replace(self._report, **changes)

    def _note(self, *notes: str) -> None:
        self._set(notes=(*self._report.notes, *notes))

    def _try(self, step: str, take: Callable[[], None]) -> None:
        """Take *step*; one that fails says so in a note, and what others found stays."""
        try:
            take()
        except Exception as error:  # noqa: BLE001 - whatever a profiler or a model under it raises
            traceback.print_exc()
            self._note(f"{step}: {failure(error).message}")

    def _plain(self, subject: Subject, ask: Callable[[], Asked], batch: int) -> None:
        """Measure requests that nothing watches."""
        self._tell("measure plain requests", 0.15)
        memory.reset_peak(subject.device)
        asked = turns.repeat(ask, max(PLAIN_REQUESTS, self._order.requests), self._order.seconds)
        peak = memory.peak_bytes(subject.device)
        wall_s = statistics.median(each.wall_s for each in asked)
        key = KeyFigures(
            requests=len(asked),
            batch=batch,
            wall_s=wall_s,
            rows_per_s=batch / wall_s if wall_s > 0 else None,
            predict_s=statistics.median(each.stages.predict_s for each in asked),
            peak_bytes=None if peak is None else max(0, peak - subject.held_before),
            load_s=subject.load_s,
            device=subject.device,
            threads=self._order.threads,
        )
        self._set(
            key=key,
            stages=turns.stages(asked),
            total=times("total", [each.wall_s for each in asked]),
        )
        if not subject.is_batchable:
            self._note("It takes one request at a time: its inputs have no rows")
        if yields_to_others():
            self._note(LOW_PRIORITY)

    def _take(self, step: str, subject: Subject, ask: Callable[[], Asked], done: float, span: float) -> None:
        order = self._order
        if step == operators.NAME:
            plain = turns.repeat(ask, order.requests, order.seconds / 2)
            traced = operators.take(subject, ask, order.requests, order.seconds, self._out)
            after = turns.repeat(ask, order.requests, order.seconds / 2)
            self._take_trace(traced, Turns((*plain, *after), traced.asked))
        elif step == functions.NAME:
            listed, seen = functions.take(ask, order.requests, order.seconds)
            self._set(
                functions=listed,
                function_requests=len(seen.watched),
                overheads=self._with(functions.NAME, seen),
            )
        elif step == SAMPLES:
            self._take_samples(ask)
        elif subject.is_batchable:
            points = sweep.take(
                subject,
                order.sweep,
                order.seconds,
                lambda share: self._tell("take sweep", done + span * share),
            )
            self._set(sweep=points, knee=knee(points))

    def _take_trace(self, traced: Traced, seen: Turns) -> None:
        self._file.add_tree("Operators (torch.profiler)", traced.roots)
        self._set(
            flames=(*self._report.flames, traced.flame),
            layers=traced.layers,
            operators=traced.operators,
            memory=traced.memory,
            memory_device=traced.memory_device,
            overheads=self._with(operators.NAME, seen),
            traced_wall_s=traced.wall_s,
            traced_self_s=traced.self_s,
            traced_requests=len(traced.asked),
            notes=self._report.notes + traced.notes,
        )

    def _take_samples(self, ask: Callable[[], Asked]) -> None:
        """Sample this thread while it asks: for the time given, since a sample more costs nothing."""
        watching = Sampler(self._order.rate_hz, only={threading.get_ident()})
        patience_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        watching.start()

        def watched() -> Asked:
            watching.pause(paused=False)
            try:
                return ask()
            finally:
                watching.pause(paused=True)

        try:
            watching.pause(paused=True)
            seen = self._until_sampled(ask, watched)
        finally:
            samples = watching.stop()
            sys.setswitchinterval(patience_s)
        self._file.add_samples(samples)
        self._set(flames=(*self._report.flames, *flames_of(samples)), overheads=self._with(SAMPLES, seen))

    def _until_sampled(self, ask: Callable[[], Asked], watched: Callable[[], Asked]) -> Turns:
        """Ask in turn for the time given, or MOST requests: short requests need many to be seen."""
        most = max(self._order.requests, int(self._order.seconds / max(self._report.key.wall_s, 1e-4)))
        return turns.alternate(ask, watched, min(most, contract.MAX_REQUESTS), self._order.seconds)

    def _with(self, name: str, seen: Turns) -> tuple[Overhead, ...]:
        return (*self._report.overheads, turns.overhead(name, seen))

    def _finish(self, seconds: float) -> None:
        """Complete the report and write the files."""
        name, share = largest(self._report)
        self._set(
            key=msgspec.structs.replace(
                self._report.key, top=name, top_share=share, knee_rows=self._report.knee
            ),
            seconds=seconds,
            libraries=libraries(),
        )
        write(self._report, self._file, self._out)


def write(report: Report, file: File, out: Path) -> None:
    """Write REPORT, and SPEEDSCOPE where there is something to show."""
    content = file.content()
    if content is not None:
        (out / contract.SPEEDSCOPE).write_bytes(msgspec.json.encode(content))
    (out / contract.REPORT).write_bytes(msgspec.json.encode(report))


def yields_to_others() -> bool:
    """Tell whether other processes go before this one."""
    return hasattr(os, "getpriority") and os.getpriority(os.PRIO_PROCESS, 0) > 0


def libraries() -> dict[str, str]:
    """Return the versions of what runs models, as far as it is installed."""
    found: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
