"""Measuring a variant against its parent: two processes, one machine, one run, turn by turn.

In every round both sides run the same batch, the one that goes first changing from round to round, and the
round gives one ratio. The median of the ratios is what is told: whatever slows the machine down for a while
slows both sides of a round.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from control_plane.domain.optimization import Answers, Conditions, Footprint, Timing
from control_plane.optimization import answers, machine
from control_plane.optimization.children import Child
from control_plane.optimization.messages import (
    Answer,
    Answered,
    Artefact,
    Command,
    Failed,
    MeasureOrder,
    Open,
    Opened,
    Said,
    Time,
    Timed,
)

MODULE: Final = "control_plane.optimization.measure_process"
WARM_UP_S: Final = 0.3
"""How long each side runs a batch before it counts, at least, in seconds."""

Beat = Callable[[float], None]
"""Told the done share in [0, 1], several times a second; may raise to end it all."""
_Kind = TypeVar("_Kind", bound=Said)


class MeasureError(Exception):
    """One side could not be measured; `side` is `parent` or `variant`, `code` a reason code."""

    def __init__(self, side: str, code: str, message: str) -> None:
        super().__init__(
            f"the {side} {message}" if code != "does_not_run" else f"the {side} fails: {message}"
        )
        self.side = side
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What came out."""

    timings: tuple[Timing, ...]
    parent: Footprint
    variant: Footprint
    answers: Answers


def measure(order: MeasureOrder, environment: Mapping[str, str], beat: Beat, timeout_s: float) -> Measured:
    """Measure the two sides of *order*. timeout_s: longest single answer of a side.

    Raises MeasureError, ChildError, and what *beat* raises; no process is left in any case.
    """
    with (
        Child(MODULE, environment) as first,
        Child(MODULE, environment) as second,
        tempfile.TemporaryDirectory(prefix="signalbox-measure-") as folder,
    ):
        run = _Run(order, _Side("parent", first), _Side("variant", second), beat, timeout_s)
        opened = run.open()
        timings = run.time()
        said = run.answer(Path(folder))
        return Measured(
            timings=timings,
            parent=_footprint(order.parent, opened[0], run.parent.memory),
            variant=_footprint(order.variant, opened[1], run.variant.memory),
            answers=said,
        )


class _Side:
    """One process and its name."""

    def __init__(self, name: str, child: Child) -> None:
        self._name = name
        self._child = child
        self.memory = 0

    def ask(self, command: Command, kind: type[_Kind], beat: Callable[[], None], timeout_s: float) -> _Kind:
        """Give one command and return its answer. Raises MeasureError."""
        self._child.tell(msgspec.json.encode(command))
        said = msgspec.json.decode(self._child.hear(beat, timeout_s), type=Said)
        if isinstance(said, Failed):
            raise MeasureError(self._name, said.code, said.message)
        if not isinstance(said, kind):
            raise MeasureError(
                self._name, "crashed", f"answered {type(said).__name__} to {type(command).__name__}"
            )
        if isinstance(said, Timed | Answered):
            self.memory = max(self.memory, said.memory_bytes)
        return said


class _Run:
    """One comparison under way."""

    def __init__(
        self, order: MeasureOrder, parent: _Side, variant: _Side, beat: Beat, timeout_s: float
    ) -> None:
        self._order = order
        self.parent, self.variant = parent, variant
        self._beat_with, self._timeout_s = beat, timeout_s
        self._done = 0.0
        self._rows = 0

    def open(self) -> tuple[Opened, Opened]:
        """Open both, one after the other: load times are measured alone."""
        conditions = self._order.conditions
        cores = machine.quietest_cores(conditions.threads)
        made = []
        for side, artefact in ((self.parent, self._order.parent), (self.variant, self._order.variant)):
            command = Open(artefact=artefact, rows=self._order.rows, threads=conditions.threads, cores=cores)
            made.append(side.ask(command, Opened, self._beat, self._timeout_s))
        self._rows = made[0].rows
        self._done = 0.1
        return made[0], made[1]

    def time(self) -> tuple[Timing, ...]:
        """All batch sizes, smallest first."""
        conditions = self._order.conditions
        return tuple(
            self._time_batch(batch, conditions, 0.1 + 0.7 * at / len(conditions.batches))
            for at, batch in enumerate(conditions.batches)
        )

    def _time_batch(self, batch: int, conditions: Conditions, start: float) -> Timing:
        self._done = start
        for side in (self.parent, self.variant):
            self._time_side(side, batch, WARM_UP_S)
        pairs: list[tuple[Timed, Timed]] = []
        for at in range(conditions.rounds):
            pairs.append(self._round(batch, conditions.round_s, variant_first=bool(at % 2)))
            self._done = start + 0.7 / len(conditions.batches) * (at + 1) / conditions.rounds
        return timing_of(batch, pairs)

    def _round(self, batch: int, seconds: float, *, variant_first: bool) -> tuple[Timed, Timed]:
        if variant_first:
            variant = self._time_side(self.variant, batch, seconds)
            return self._time_side(self.parent, batch, seconds), variant
        parent = self._time_side(self.parent, batch, seconds)
        return parent, self._time_side(self.variant, batch, seconds)

    def _time_side(self, side: _Side, batch: int, seconds: float) -> Timed:
        return side.ask(Time(rows=batch, seconds=seconds), Timed, self._beat, self._timeout_s)

    def answer(self, folder: Path) -> Answers:
        """Both answer every row; what they said is compared here."""
        files = []
        for at, (name, side) in enumerate((("parent", self.parent), ("variant", self.variant))):
            self._done = 0.8 + 0.1 * at
            files.append(folder / f"{name}.npz")
            side.ask(Answer(out=str(files[at])), Answered, self._beat, self._timeout_s)
        right = [row.label for row in self._order.rows] or [None] * self._rows
        return answers.compare(answers.read(files[0]), answers.read(files[1]), right)

    def _beat(self) -> None:
        self._beat_with(self._done)


def timing_of(batch: int, pairs: list[tuple[Timed, Timed]]) -> Timing:
    """Sum up the rounds of one batch size, (parent, variant) each. Pure."""
    ratios = [parent.median_s / variant.median_s for parent, variant in pairs]
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    variant_s = statistics.median(variant.median_s for _, variant in pairs)
    tokens = pairs[0][1].tokens
    return Timing(
        batch=batch,
        speedup=statistics.median(ratios),
        speedup_low=low,
        speedup_high=high,
        parent_ms=1000 * statistics.median(parent.median_s for parent, _ in pairs),
        variant_ms=1000 * variant_s,
        rounds=len(pairs),
        quiet=min(side.quiet for pair in pairs for side in pair),
        tokens_per_s=tokens / variant_s if tokens else None,
    )


def _footprint(artefact: Artefact, opened: Opened, memory: int) -> Footprint:
    return Footprint(size_bytes=size_of(Path(artefact.folder)), load_s=opened.load_s, memory_bytes=memory)


def size_of(folder: Path) -> int:
    """Bytes of all files below *folder*."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
