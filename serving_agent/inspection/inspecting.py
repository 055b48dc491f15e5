"""One run of one artefact on one input: plainly, then recorded, and both compared."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from serving_agent import batch, pipeline
from serving_agent.contract.inspection import (
    RUN,
    VALUES,
    Failure,
    Inspected,
    InspectedRun,
    InspectionOrder,
    NotInspected,
    Progressed,
    Stage,
)
from serving_agent.errors import ClientError
from serving_agent.inspection import answers, failures, opening, progress, requests, tokens
from serving_agent.inspection.captures import catalog
from serving_agent.inspection.captures.base import Capture
from serving_agent.inspection.captures.nothing import Nothing
from serving_agent.inspection.edits import EditError, Edits, listed
from serving_agent.inspection.points import Clock, Points
from serving_agent.inspection.progress import Progress
from serving_agent.inspection.requests import Request
from serving_agent.inspection.steps import Steps, not_reached
from serving_agent.inspection.summaries import Summaries
from serving_agent.inspection.values_file import ValuesFile
from serving_agent.limits import is_out_of_memory
from serving_agent.messages import OutputTensor
from serving_agent.model_server import ModelServer

LIBRARIES: Final = ("torch", "numpy", "transformers", "tokenizers", "torchao", "onnxruntime", "openvino")
"""Distributions that have a part in what a model computes, told of where they are loaded."""
WARM_RUNS: Final = 3
"""Plain runs before recording, as an agent warms up."""
WARM_S: Final = 1.0
"""No further plain run once they have taken so long."""


def inspect(order: InspectionOrder, say: Callable[[Progressed], None]) -> Inspected | NotInspected:
    """Carry out *order* in this process: leave RUN and VALUES in its folder, or say why not."""
    told = Progress(say)
    is_open = False
    try:
        told.at("open the model", progress.OPENING)
        started = time.perf_counter()
        server = opening.opened(order)
        load_s = time.perf_counter() - started
        is_open = True
        _write(Inspection(order, server, told, load_s).run(), Path(order.out))
    except Exception as error:  # noqa: BLE001  an edge: whatever a model's code raises is told of
        (Path(order.out) / VALUES).unlink(missing_ok=True)
        return failures.not_inspected(error, order.memory_bytes, opening=not is_open)
    return Inspected()


@dataclass(frozen=True, slots=True)
class Plain:
    """The request as an agent answers it."""

    outputs: tuple[OutputTensor, ...] | None
    """None where it failed."""
    seconds: float | None
    error: str = ""
    """What it failed with."""


class Inspection:
    """One opened model and one request."""

    def __init__(self, order: InspectionOrder, server: ModelServer, told: Progress, load_s: float) -> None:
        self._order = order
        self._server = server
        self._told = told
        self._load_s = load_s

    def run(self) -> InspectedRun:
        """Return what was seen. Raises EditError, MemoryError, and OSError where the disk is full."""
        capture = catalog.for_model(self._server)
        try:
            request = requests.read(self._order, self._server.signature())
        except ClientError as error:
            return self._refused(error, capture)
        self._told.at("run it plainly", progress.PLAIN)
        plain = self._plain(request)
        self._told.at("record it", progress.RECORDED)
        run = self._recorded(request, capture, plain)
        failed = next((stage.failure for stage in run.stages if stage.failure is not None), None)
        if failed is None or self._order.edits or failed.message.splitlines()[0] in plain.error:
            return run
        # it does not fail so when nobody watches: the watching is at fault, not the model
        why = f"The recording failed, not the model ({failed.type}: {failed.message.splitlines()[0]})."
        return self._recorded(request, Nothing(why), plain)

    def _refused(self, error: ClientError, capture: Capture) -> InspectedRun:
        """Return the run of a request that an agent answers 400."""
        failure = Failure(type=type(error).__name__, message=str(error), place="")
        with ValuesFile(Path(self._order.out), self._order.keep_bytes) as values:
            sent = requests.as_sent(self._order, Summaries(values))
            values.finish()
        refused = Stage(name="inputs", state="failed", tensors=sent, failure=failure)
        return self._told_of(capture, (refused, *not_reached(1)))

    def _plain(self, request: Request) -> Plain:
        outputs, seconds, spent = None, 0.0, 0.0
        for _ in range(WARM_RUNS):
            started = time.perf_counter()
            try:
                outputs = self._once(request)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                return Plain(None, None, failures.of_error(error, None).message)
            seconds = time.perf_counter() - started
            spent += seconds
            if spent >= WARM_S:
                break
        return Plain(outputs, seconds)

    def _once(
        self, request: Request, setting: AbstractContextManager[None] | None = None
    ) -> tuple[OutputTensor, ...]:
        """Answer the request, every time with the same random numbers."""
        _seed()
        with setting or nullcontext():
            inputs = batch.copied(request.inputs)
            return pipeline.run(self._server, inputs, parameters=request.parameters).outputs

    def _recorded(self, request: Request, capture: Capture, plain: Plain) -> InspectedRun:
        edits = Edits(self._order.edits)
        with ValuesFile(Path(self._order.out), self._order.keep_bytes) as values:
            summaries = Summaries(values)
            points = Points(summaries, edits, self._told.recorded, _clock(self._server.context.device))
            steps = Steps(summaries, edits, points.clock, request.seconds)
            failure, outputs = None, None
            _seed()
            started = time.perf_counter()
            try:
                with capture.watching(self._server, points):
                    inputs = batch.copied(request.inputs)
                    outputs = pipeline.run(self._server, inputs, steps, request.parameters).outputs
            except Exception as error:
                if is_out_of_memory(error) or failures.is_of_recording(error):
                    raise
                failure = failures.of_error(error, points.trouble)
            seconds = time.perf_counter() - started
            if failure is None:
                _check_applied(edits, points)
            values.finish()
        self._told.at("write", progress.WRITING)
        same = None
        if outputs is not None and plain.outputs is not None and not self._order.edits:
            same = answers.same(plain.outputs, outputs)
            if not same:
                points.note(self._why_not_same(request, capture, plain.outputs, outputs))
        return msgspec.structs.replace(
            self._told_of(capture, steps.stages(failure)),
            note=" ".join(points.notes),
            points=tuple(points.points),
            edits=self._order.edits,
            plain_s=plain.seconds,
            recorded_s=None if failure is not None else seconds,
            same_outputs=same,
            tokens=tokens.pieces(self._server, steps.values.get("preprocess", {})),
        )

    def _why_not_same(
        self,
        request: Request,
        capture: Capture,
        plain: tuple[OutputTensor, ...],
        recorded: tuple[OutputTensor, ...],
    ) -> str:
        """Say why both runs gave other outputs, as far as further runs show it."""
        how = answers.difference(plain, recorded)
        if not answers.same(plain, self._once(request)):
            return f"The model does not give one answer twice: recorded and plain outputs {how}."
        setting = capture.unwatched(self._server)
        if setting is not None and answers.same(recorded, self._once(request, setting)):
            return (
                f"Agents run layers fused, which rounds otherwise: outputs recorded here, with the layers "
                f"apart, {how} from theirs. Recording itself changed nothing."
            )
        return f"Recorded outputs {how} from the plain ones, which agents give."

    def _told_of(self, capture: Capture, stages: tuple[Stage, ...]) -> InspectedRun:
        return InspectedRun(
            level=capture.level,
            stages=stages,
            load_s=self._load_s,
            device=self._server.context.device,
            libraries={name: metadata.version(name) for name in LIBRARIES if name in sys.modules},
        )


def _check_applied(edits: Edits, points: Points) -> None:
    """Refuse edits of what did not run. Raises EditError."""
    if edits.waiting:
        there = listed(["inputs", "preprocess", *points.names])
        raise EditError(
            f"{edits.waiting[0]!r} is no point of this run, so it cannot be edited; there are {there}"
        )


def _clock(device: str) -> Clock:
    """A clock that waits for a GPU, whose kernels run on after they are called."""
    if device == "cpu":
        return Clock()
    import torch

    return Clock(torch.cuda.synchronize)


def _seed() -> None:
    import torch

    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def _write(run: InspectedRun, folder: Path) -> None:
    part = folder / f"{RUN}.part"
    try:
        with part.open("wb") as file:
            file.write(msgspec.json.encode(run))
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / RUN)
    finally:
        part.unlink(missing_ok=True)
