"""The steps of one request, as `pipeline` tells them."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from serving_agent.contract.inspection import STAGES, Failure, Stage, StageName, TensorSummary
from serving_agent.inspection import structures
from serving_agent.inspection.edits import EditError, Edits
from serving_agent.inspection.points import Clock
from serving_agent.inspection.summaries import Summaries, UnreadableError, unread


class Steps:
    """A StepRecorder: sums up what each step produced, and edits it."""

    def __init__(self, summaries: Summaries, edits: Edits, clock: Clock, decoded_s: float) -> None:
        """*decoded_s*: how long reading the inputs took."""
        self.values: dict[str, Mapping[str, Any]] = {}
        """What each step produced, by the step's name."""
        self._summaries = summaries
        self._edits = edits
        self._clock = clock
        self._done: list[Stage] = []
        self._began = clock.now() - decoded_s

    def record(self, step: str, values: Mapping[str, Any]) -> None:
        """Take what *step* produced. Raises EditError, and OSError where the disk is full."""
        seconds = self._clock.now() - self._began
        with self._clock.aside():
            if step in self._edits:
                _put(step, values, self._edits)
            self.values[step] = values
            name = next(name for name in STAGES if name == step)
            self._done.append(
                Stage(name=name, state="done", seconds=seconds, tensors=summed_up(self._summaries, values))
            )
        self._began = self._clock.now()

    def stages(self, failure: Failure | None) -> tuple[Stage, ...]:
        """Return all steps; *failure* is of the one that came after the last that was told.

        An answer that breaks the signature fails in the last step, and is shown with it.
        """
        done = list(self._done)
        if failure is None:
            return tuple(done)
        seconds = max(self._clock.now() - self._began, 0.0)
        if len(done) == len(STAGES):
            last = done.pop()
            failed = Stage(
                name=last.name, state="failed", seconds=last.seconds, tensors=last.tensors, failure=failure
            )
        else:
            failed = Stage(name=_name(len(done)), state="failed", seconds=seconds, failure=failure)
        return (*done, failed, *not_reached(len(done) + 1))


def not_reached(first: int) -> tuple[Stage, ...]:
    """Return the steps from the place *first* on as not reached."""
    return tuple(Stage(name=_name(place), state="not_reached") for place in range(first, len(STAGES)))


def summed_up(summaries: Summaries, values: Mapping[str, Any]) -> tuple[TensorSummary, ...]:
    """Return the summaries of all tensors in *values*; of those that cannot be read, why."""
    found = []
    for name, leaf in structures.leaves(dict(values)):
        try:
            found.append(summaries.of(name, leaf))
        except UnreadableError as error:
            found.append(unread(name, leaf, str(error)))
    return tuple(found)


def _name(place: int) -> StageName:
    names: tuple[StageName, ...] = STAGES
    return names[place]


def _put(step: str, values: Mapping[str, Any], edits: Edits) -> None:
    """Edit what *step* produced where it is: the next step gets the same mapping."""
    changed = edits.apply(step, dict(values))
    if not isinstance(values, MutableMapping):
        raise EditError(f"what {step} of this handler produces cannot be changed: {type(values).__name__}")
    for name, value in changed.items():
        values[name] = value
