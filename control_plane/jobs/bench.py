"""The bench of the lab: builds, measures and registers variants of one version for a job.

Everything that is finished is marked on the disk or in the registry, so that a job which starts again does
nothing twice: rows are read once and kept, an artefact that is whole is not built again, and a version that
was registered for a trial is found by its lineage.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from control_plane.domain import calibration
from control_plane.domain.acceptance import decide
from control_plane.domain.optimization import (
    METHOD,
    REPORT,
    Budget,
    Conditions,
    Decision,
    Recorded,
    Report,
)
from control_plane.domain.optimization_views import CalibrationWish
from control_plane.domain.views import Example, Reason
from control_plane.optimization import building, catalog, machine, measuring
from control_plane.optimization.building import BuildFailedError
from control_plane.optimization.children import ChildError
from control_plane.optimization.measuring import MeasureError
from control_plane.optimization.messages import Artefact, BuildOrder, BuildReply, HoldoutRow, MeasureOrder
from control_plane.registry import session as sessions
from control_plane.registry import versions as version_rows
from control_plane.services import (
    catalogs,
    optimization_folders,
    optimization_rows,
    optimization_subjects,
    optimization_trials,
    registration,
)
from control_plane.services.context import Context
from control_plane.services.optimization_subjects import Known
from control_plane.services.optimization_trials import Trial

ANSWER_TIMEOUT_S: Final = 600.0
"""Longest single answer of a side that is measured: to open the artefact, to run one batch size once."""
SAMPLE_ROWS: Final = 8
"""Examples that methods without calibration are given, to run the network with."""
NEXT_STEPS: Final = {
    "out_of_memory": "Raise SIGNALBOX_AGENT_MEMORY, or use a machine with more memory.",
    "no_space": "Delete versions or other files, then try again.",
    "cannot_build": "Choose another method, or other parameters.",
    "timed_out": "Give it more time, or choose another method.",
}
"""By reason code; for all others the job's log says more."""
_SEE_LOG: Final = "See the job's log."

Share = Callable[[float], None]
"""Told the done share in [0, 1] of one stage, several times a second; may raise to end it."""


class TrialFailedError(Exception):
    """A trial could not be built or measured, for `reason`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.message)
        self.reason = reason


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """Rows as they were when the job began: all its starts use the same."""

    calibrating: list[dict[str, Any]] | None
    calibration: dict[str, Any] | None
    """{"source", "rows", "digest"}"""
    holdout: tuple[HoldoutRow, ...]
    holdout_source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a job wants of the bench."""

    job_id: str
    actor: str
    conditions: Conditions
    budget: Budget
    calibration: CalibrationWish | None


class Bench:
    """Works on variants of one version, for one job."""

    def __init__(self, ctx: Context, found: Known, task: Task) -> None:
        self._ctx = ctx
        self._known = found
        self._task = task
        self.folder = optimization_folders.of_job(ctx.settings, task.job_id)
        self._parent = optimization_subjects.artefact(ctx, found)
        self._environment = ctx.settings.child_environment()
        self._prepared: Prepared | None = None

    # rows

    def begin(self) -> bool:
        """Make the job's folder; False where an earlier start of the job left one."""
        is_new = not (self.folder / "rows.json").exists()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return is_new

    def prepare(self) -> Prepared:
        """The rows that calibrate and those that answers are compared on; read once in a job's life."""
        if self._prepared is None:
            file = self.folder / "rows.json"
            if not file.exists():
                write_synced(file, msgspec.json.encode(self._read_rows()))
            self._prepared = msgspec.json.decode(file.read_bytes(), type=Prepared)
        return self._prepared

    def _read_rows(self) -> Prepared:
        wish = self._task.calibration
        taken = optimization_rows.calibrating(self._ctx, self._known, wish) if wish else None
        holdout = optimization_rows.holdout(self._ctx, self._known, taken.rows if taken else ())
        return Prepared(
            calibrating=list(taken.rows) if taken else None,
            calibration=taken.recorded() if taken else None,
            holdout=holdout.rows,
            holdout_source=holdout.source,
        )

    # building

    def built(self, number: int) -> BuildReply | None:
        """What an earlier start built for the trial; None where the artefact is not whole."""
        marker = self._of_trial(number) / optimization_folders.BUILT
        return msgspec.json.decode(marker.read_bytes(), type=BuildReply) if marker.exists() else None

    def build(self, trial: Trial, beat: Callable[[], None], timeout_s: float) -> BuildReply:
        """Build the trial's artefact unless it is there. Raises TrialFailedError, and what *beat* raises."""
        reply = self.built(trial.number)
        if reply is None:
            self.discard(trial.number)
            out = self.artefact_folder(trial.number)
            out.mkdir(parents=True)
            with self._failures(trial.number):
                reply = building.build(self._build_order(trial, out), self._environment, beat, timeout_s)
                seal(out)
                write_synced(
                    self._of_trial(trial.number) / optimization_folders.BUILT, msgspec.json.encode(reply)
                )
        optimization_trials.built(self._ctx, self._task.job_id, trial.number, reply)
        return reply

    def _build_order(self, trial: Trial, out: Path) -> BuildOrder:
        rows = self._rows_for(calibrated=catalog.get(trial.method).calibrated)
        file = self._of_trial(trial.number) / "rows.json"
        if rows:
            file.write_bytes(msgspec.json.encode(rows))
        return BuildOrder(
            parent=self._parent,
            method=trial.method,
            params=trial.params,
            rows_file=str(file) if rows else None,
            out=str(out),
            threads=self._task.conditions.threads,
        )

    def _rows_for(self, *, calibrated: bool) -> list[dict[str, Any]]:
        """Rows that calibrate; for a method without calibration a few to run the network with."""
        prepared = self.prepare()
        if prepared.calibrating:
            return prepared.calibrating if calibrated else prepared.calibrating[:SAMPLE_ROWS]
        served = self._known.served
        examples = (each["inputs"] for each in self._known.examples[:SAMPLE_ROWS])
        return [row for row in examples if not calibration.misfit(row, served)]

    # measuring

    def measure(
        self,
        trial: Trial,
        reply: BuildReply,
        share: Share,
        *,
        screening: Conditions | None = None,
        rows: int | None = None,
    ) -> Report:
        """Measure the trial's artefact against the parent.

        screening: conditions other than the job's; rows: how many of the rows to compare are used. Raises
        TrialFailedError, and what *share* raises.
        """
        prepared = self.prepare()
        conditions = screening or self._task.conditions
        holdout = prepared.holdout if rows is None else tuple(calibration.spread(prepared.holdout, rows))
        order = MeasureOrder(
            parent=self._parent,
            variant=self._variant(trial.number, reply),
            rows=holdout,
            conditions=conditions,
        )
        with self._failures(trial.number):
            measured = measuring.measure(order, self._environment, share, ANSWER_TIMEOUT_S)
        return Report(
            conditions=conditions,
            timings=measured.timings,
            parent=measured.parent,
            variant=measured.variant,
            answers=measured.answers,
            build_s=reply.seconds,
            machine=machine.described(machine.this_machine()),
            libraries=reply.libraries,
            notes=(*reply.notes, f"answers were compared on {prepared.holdout_source}"),
        )

    def judge(self, trial: Trial, report: Report) -> Decision:
        """Decide by the job's budget, and write down both."""
        decision = decide(report, self._task.budget)
        optimization_trials.measured(self._ctx, self._task.job_id, trial.number, report, decision)
        return decision

    def _variant(self, number: int, reply: BuildReply) -> Artefact:
        return Artefact(
            folder=str(self.artefact_folder(number)),
            format=reply.format,
            handler=self._parent.handler,
            signature=self._parent.signature,
            labels=self._parent.labels,
            allowed_handlers=self._parent.allowed_handlers,
        )

    # registering

    def register(self, trial: Trial, *, by_job: str) -> str:
        """Make the trial's artefact the next version of the model, once; returns `model@N`."""
        with self._alone(trial.number):
            ref = self._registered(trial) or self._register(trial)
            optimization_trials.registered(self._ctx, self._task.job_id, trial.number, ref, by_job=by_job)
        return ref

    def _register(self, trial: Trial) -> str:
        reply = self.built(trial.number)
        if reply is None or trial.report is None or trial.decision is None:
            raise TrialFailedError(Reason("gone", f"the artefact of trial {trial.number} is gone"))
        found, now = self._known, time.time()
        is_program = catalogs.is_program(reply.format)
        inherited = found.program_accepted_by is not None
        return registration.register(
            self._ctx,
            model=found.model,
            files_dir=self.artefact_folder(trial.number),
            format=reply.format,
            handler=found.handler,
            signature=found.signature,
            labels=found.labels,
            details=figures(trial.method, trial.report, trial.decision),
            examples=[Example(each["inputs"], each.get("label")) for each in found.examples],
            actor=self._task.actor,
            program_accepted_by=(found.program_accepted_by or self._task.actor) if is_program else None,
            program_accepted_at=(found.program_accepted_at if inherited else now) if is_program else None,
            parent_ref=found.ref,
            lineage=self._lineage(trial, trial.report, trial.decision),
        )

    def _lineage(self, trial: Trial, report: Report, decision: Decision) -> dict[str, Any]:
        is_calibrated = catalog.get(trial.method).calibrated
        recorded = Recorded(
            parent=self._known.ref,
            method=trial.method,
            params=trial.params,
            calibration=self.prepare().calibration if is_calibrated else None,
            job=self._task.job_id,
            trial=trial.number,
            report=report,
            decision=decision,
            budget=self._task.budget,
        )
        return {
            METHOD: trial.method,
            REPORT: msgspec.to_builtins(recorded),
            "job": self._task.job_id,
            "trial": trial.number,
        }

    def _registered(self, trial: Trial) -> str | None:
        """The version that an earlier start registered for the trial."""
        mark = (self._task.job_id, trial.number, trial.method)
        with sessions.read(self._ctx.engine) as session:
            for row in version_rows.children(session, [self._known.version_id]):
                lineage = row.lineage
                is_it = tuple(lineage.get(key) for key in ("job", "trial", METHOD)) == mark
                if is_it and lineage[REPORT]["params"] == trial.params:
                    return row.ref
        return None

    # cleaning up

    def discard(self, number: int) -> None:
        """Remove what there is of a trial's artefact. Idempotent."""
        shutil.rmtree(self._of_trial(number), ignore_errors=True)

    def artefact_folder(self, number: int) -> Path:
        """The folder of the trial's artefact."""
        return self._of_trial(number) / optimization_folders.ARTEFACT

    def _of_trial(self, number: int) -> Path:
        return optimization_folders.of_trial(self.folder, number)

    @contextmanager
    def _alone(self, number: int) -> Iterator[None]:
        """Nobody else registers the trial meanwhile: the job itself may, and who clicked on it."""
        self._of_trial(number).mkdir(parents=True, exist_ok=True)
        with (self._of_trial(number) / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _failures(self, number: int) -> Iterator[None]:
        """Turn what processes of the lab say into the trial's reason; nothing of its artefact stays."""
        try:
            yield
        except (BuildFailedError, ChildError, MeasureError) as error:
            self.discard(number)
            raise TrialFailedError(reason(error.code, str(error))) from error
        except OSError as error:
            self.discard(number)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise TrialFailedError(reason("no_space", "the disk is full")) from error
            raise


def reason(code: str, message: str) -> Reason:
    """A failure of a trial with what to do about it."""
    return Reason(code, message, NEXT_STEPS.get(code, _SEE_LOG))


def figures(method: str, report: Report, decision: Decision) -> dict[str, Any]:
    """What the version's details say of it: the full report is in its lineage."""
    return {
        "optimized_by": method,
        "optimization": "accepted" if decision.accepted else "rejected",
        **{f"speedup_at_batch_{timing.batch}": round(timing.speedup, 2) for timing in report.timings},
        "size_ratio": round(report.shrink, 3),
        "agreement": round(report.answers.agreement, 5),
    }


def seal(folder: Path) -> None:
    """Have every file below *folder* on the disk."""
    for path in (folder, *folder.rglob("*")):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_synced(file: Path, content: bytes) -> None:
    """Put *content* at *file*, whole and on the disk, or not at all."""
    waiting = file.with_suffix(".new")
    with waiting.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    waiting.replace(file)
    handle = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
