"""Running one batch: join, pad, model, split; a batch that fails is run again member by member."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence

import msgspec

from serving_agent import batch, pipeline
from serving_agent.errors import AgentError, ModelError, ModelMemoryError
from serving_agent.limits import is_out_of_memory, memory_sentence
from serving_agent.measurements import StageTimes
from serving_agent.messages import OutputTensor
from serving_agent.model_server import ModelServer
from serving_agent.work import Answer, Outcome, Work

logger = logging.getLogger(__name__)


class Executed(msgspec.Struct, frozen=True):
    """One run of the model: its rows, padding not counted, its time, and each member's outcome."""

    rows: int
    stages: StageTimes | None
    """None where the run failed."""
    outcomes: list[tuple[Work, Outcome]]


class BatchRunner:
    """Runs batches on the calling thread."""

    def __init__(self, server: ModelServer, buckets: Sequence[int], memory_bytes: int | None) -> None:
        self._server = server
        self._buckets = buckets
        self._memory_bytes = memory_bytes

    def run(self, members: Sequence[Work]) -> Iterator[Executed]:
        """Run *members* together, or each alone where that failed; yield after every run what became of whom.

        Whatever a model raises, SystemExit too, is the outcome of its request. Members whose clients have
        gone meanwhile are not run again.
        """
        executed = self._run(members)
        if executed is not None:
            yield executed
            return
        for member in members:
            if not member.is_settled:
                yield from self.run([member])

    def _run(self, members: Sequence[Work]) -> Executed | None:
        """Return what became of *members*; None where several failed together."""
        try:
            return self._together(members)
        except BaseException as error:  # noqa: BLE001 - the edge of a request: the outcome carries it
            if len(members) == 1:
                return Executed(members[0].rows, None, [(members[0], self._failure(error))])
            logger.warning(
                "a batch of %d requests failed (%s); running each alone", len(members), type(error).__name__
            )
            return None

    def _together(self, members: Sequence[Work]) -> Executed:
        started_s = time.perf_counter()
        rows = sum(member.rows for member in members)
        batched = members[0].group is not None
        inputs = (
            batch.join([member.inputs for member in members], batch.padded_rows(rows, self._buckets))
            if batched
            else members[0].inputs
        )
        run = pipeline.run(self._server, inputs, parameters=members[0].parameters)
        parts = [run.outputs] if not batched else self._parts(run, members, inputs)
        outcomes: list[tuple[Work, Outcome]] = [
            (member, Answer(part, started_s - member.submitted_s, run.stages))
            for member, part in zip(members, parts, strict=True)
        ]
        return Executed(rows, run.stages, outcomes)

    def _parts(
        self, run: pipeline.Run, members: Sequence[Work], inputs: batch.Inputs
    ) -> list[tuple[OutputTensor, ...]]:
        sent = len(next(iter(inputs.values())))
        if not batch.holds_rows(run.outputs, sent):
            raise ModelError(f"the model did not return one output row for each of {sent} input rows")
        return batch.split(run.outputs, [member.rows for member in members])

    def _failure(self, error: BaseException) -> AgentError:
        if isinstance(error, AgentError) and not isinstance(error, ModelError):
            return error
        logger.error("the model failed on a request", exc_info=error)
        if isinstance(error, ModelError):
            return error
        if is_out_of_memory(error):
            return ModelMemoryError(memory_sentence(self._memory_bytes))
        return ModelError(
            f"the model failed on this input ({type(error).__name__}); the agent's log tells more"
        )
