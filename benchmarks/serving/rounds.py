"""Rounds: one server up at a time, in random order, every figure recorded as soon as it is there."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.serving import environments, load, machine, plan
from benchmarks.serving.load import Load
from benchmarks.serving.peers import python_app
from benchmarks.serving.peers.base import EXPECTED_FILE, Peer, Start, Target, Variant
from benchmarks.serving.plan import BOUND, TORCH_BATCHES, TORCH_WIRE, Cell, Session
from benchmarks.serving.processes import ONE_THREAD, StartError
from benchmarks.serving.records import Record
from benchmarks.serving.wire import ReplyError
from benchmarks.serving.workloads import FloatArray, Workload

MODELS: Final = environments.PEERS / "models"
REASON_LENGTH: Final = 300


@dataclass(frozen=True, slots=True)
class Conditions:
    """How every measurement is made; times in seconds, cores by number."""

    seconds: float
    warm_up_s: float
    server_core: int
    load_core: int

    def load(self, concurrency: int) -> Load:
        """Return the load with so many requests under way."""
        return Load(concurrency, self.warm_up_s, self.seconds, self.load_core)


def measure(
    session: Session,
    round_number: int,
    peers: Mapping[str, Peer],
    conditions: Conditions,
    record: Callable[[Record], None],
) -> None:
    """Make the measurements of one session and hand each to *record*; what fails is recorded as void."""
    if session.server == plan.TORCH:
        _torch_loop(session.workload, round_number, conditions, record)
        return
    left = list(session.cells)
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        start = _start(session, Path(folder), conditions)
        try:
            with peers[session.server].start(start) as target:
                while left:
                    record(
                        _measure_cell(session, left.pop(0), round_number, target, Path(folder), conditions)
                    )
        except (StartError, OSError) as error:
            for cell in left:
                record(_record(session, cell, round_number, void=reason(error)))


def _start(session: Session, folder: Path, conditions: Conditions) -> Start:
    own = folder / "server"
    own.mkdir()
    model_dir = MODELS / session.workload.name
    return Start(model_dir, own, session.workload, session.variant, conditions.server_core)


def _measure_cell(
    session: Session, cell: Cell, round_number: int, target: Target, folder: Path, conditions: Conditions
) -> Record:
    workload = session.workload
    traffic = folder / f"{cell.wire}-{cell.concurrency}"
    load_average = machine.load_average()
    try:
        found = load.measure(
            cell.wire, target, workload, expected(workload), conditions.load(cell.concurrency), traffic
        )
    except (ReplyError, OSError) as error:
        return _record(session, cell, round_number, load_average, void=reason(error))
    return _record(session, cell, round_number, load_average, found.as_dict())


def _record(
    session: Session,
    cell: Cell,
    round_number: int,
    load_average: float | None = None,
    figures: Mapping[str, float] | None = None,
    void: str | None = None,
) -> Record:
    return Record(
        round=round_number,
        server=session.server,
        tuned=session.variant.tuned,
        batching=session.variant.batching,
        workload=session.workload.name,
        wire=cell.wire,
        concurrency=cell.concurrency,
        load_average=machine.load_average() if load_average is None else load_average,
        figures=figures or {},
        void=void,
    )


def expected(workload: Workload) -> FloatArray:
    """Return torch's own answers, shape (distinct, *answer)."""
    answers: FloatArray = np.load(MODELS / workload.name / EXPECTED_FILE)
    return answers


def reason(error: Exception) -> str:
    """Return why a measurement is void in a line that names no path of this machine."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = lines[0] if len(lines) == 1 else f"{lines[0]} … {lines[-1]}"
    return text.replace(str(environments.ROOT), ".").replace(str(Path.home()), "~")[:REASON_LENGTH]


def _torch_loop(
    workload: Workload, round_number: int, conditions: Conditions, record: Callable[[Record], None]
) -> None:
    session = Session(plan.TORCH, Variant(), workload, ())
    for batch in TORCH_BATCHES:
        cell = Cell(TORCH_WIRE, batch)  # type: ignore[arg-type] # the one that is no server's
        load_average = machine.load_average()
        try:
            figures = _run_loop(workload, batch, conditions)
        except (StartError, OSError) as error:
            record(_record(session, cell, round_number, load_average, void=reason(error)))
        else:
            record(_record(session, cell, round_number, load_average, figures))


def _run_loop(workload: Workload, batch: int, conditions: Conditions) -> dict[str, float]:
    start = Start(MODELS / workload.name, Path(), workload, Variant(), conditions.server_core)
    command = [
        *("taskset", "--cpu-list", str(conditions.server_core), str(environments.python(BOUND))),
        *(str(python_app.APPS / "raw_loop.py"), str(batch)),
        *(str(conditions.warm_up_s), str(conditions.seconds)),
    ]
    environment = ONE_THREAD | python_app.settings(start, 0, 0)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise StartError(done.stderr)
    return loop_figures(json.loads(done.stdout))


def loop_figures(report: dict[str, Any]) -> dict[str, float]:
    """Return a torch loop's report in the terms of `load.Figures`: rps counts rows. Pure."""
    rows = report["batch"] * report["calls"]
    quantiles = {name: report[name] for name in ("p50_us", "p90_us", "p99_us")}
    return {"rps": rows / report["seconds"], "answers": rows, **quantiles}
