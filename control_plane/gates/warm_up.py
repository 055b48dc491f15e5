"""`warm-up`: the candidate answers about as fast as stable, measured side by side on the same inputs.

Single requests on a shared machine vary a lot, and a busy one delays one of two processes for many requests
in a row. So the gate only catches what is grossly slower: of interleaved requests even the candidate's fast
quarter must take longer than stable's slow quarter, by FACTOR and by SLACK_S, twice in a row. Finer
differences are what the rollout's own statistics are for.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.gates.asking import Answer, Asking
from control_plane.gates.base import Finding, Outcome
from control_plane.gates.infer_codec import Row
from control_plane.gates.scene import Scene, Side, example

FACTOR: Final = 2.0
SLACK_S: Final = 0.005
ROUNDS: Final = 2
"""A candidate that is too slow in the first round is measured again."""
PAIRS: Final = 15
DISCARDED: Final = 2
"""First requests of each side, whose times are not counted."""
MOST_S: Final = 20.0
"""No more pairs are begun once a round's counted requests took so long together."""
FEWEST_PAIRS: Final = 3


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of the answered requests of one round."""

    stable: tuple[float, ...]
    candidate: tuple[float, ...]

    @property
    def medians(self) -> tuple[float, float]:
        """Of stable and candidate, in seconds."""
        return statistics.median(self.stable), statistics.median(self.candidate)

    @property
    def is_slow(self) -> bool:
        """Whether the candidate is grossly slower."""
        if not self.stable or not self.candidate:
            return False
        stable, candidate = _slow_quarter(self.stable), _fast_quarter(self.candidate)
        return candidate > FACTOR * stable and candidate - stable >= SLACK_S


def _fast_quarter(seconds: Sequence[float]) -> float:
    """The longest of the shortest quarter of *seconds*, which are not empty."""
    return sorted(seconds)[len(seconds) // 4]


def _slow_quarter(seconds: Sequence[float]) -> float:
    """The shortest of the longest quarter of *seconds*, which are not empty."""
    return sorted(seconds)[-1 - len(seconds) // 4]


@dataclass(frozen=True, slots=True)
class Latency:
    """What was measured, round by round; at least one."""

    rounds: tuple[Round, ...]


class WarmUp:
    """Asks one agent of each side in turn."""

    name = "warm-up"
    title = "Warm latency"
    always = False
    decisive = False

    def inapplicable(self, scene: Scene) -> str | None:
        """Where answers are cached, it takes inputs that nobody has asked for yet."""
        if scene.cached and len(scene.examples) <= DISCARDED + FEWEST_PAIRS:
            return "the endpoint caches answers, and there are too few example inputs to measure past that"
        return None

    def gather(self, scene: Scene, asking: Asking) -> Latency:
        """Measure a round, and another one where the first looks bad."""
        inputs = _inputs(scene)
        rounds = [_measured(scene, asking, inputs)]
        while rounds[-1].is_slow and len(rounds) < ROUNDS:
            again = _measured(scene, asking, inputs)
            if not again.stable:  # no inputs are left
                break
            rounds.append(again)
        return Latency(tuple(rounds))

    def decide(self, evidence: Latency) -> Finding:
        """Fail when the candidate is grossly slower in every round, or does not answer."""
        last = evidence.rounds[-1]
        if not last.stable:
            return Finding(Outcome.NOT_APPLICABLE, "stable does not answer the input to measure with")
        if not last.candidate:
            return Finding(Outcome.FAILED, "the candidate answers none of the measured requests")
        stable, candidate = last.medians
        figures = {
            "stable_median_s": stable,
            "candidate_median_s": candidate,
            "requests": len(last.candidate),
            "rounds": len(evidence.rounds),
            "factor": FACTOR,
        }
        said = f"median {candidate * 1000:.1f} ms against {stable * 1000:.1f} ms of stable"
        if all(each.is_slow for each in evidence.rounds):
            return Finding(Outcome.FAILED, f"{said}: more than {FACTOR:g} times as long", figures)
        return Finding(Outcome.PASSED, said, figures)


def _inputs(scene: Scene) -> Iterator[Row]:
    """Inputs to measure with: for ever, or where answers are cached each example once."""
    if scene.cached:
        return iter(scene.examples[1:])  # the first one has been asked by the smoke test
    return itertools.cycle(scene.examples or (example(scene)[0],))


def _measured(scene: Scene, asking: Asking, inputs: Iterator[Row]) -> Round:
    seconds: dict[str, list[float]] = {"stable": [], "candidate": []}
    sides = {"stable": scene.stable, "candidate": scene.candidate}
    for at, row in enumerate(itertools.islice(inputs, DISCARDED + PAIRS)):
        spent = sum(map(sum, seconds.values()))
        if spent > MOST_S and at >= DISCARDED + FEWEST_PAIRS:
            break
        for which in ("stable", "candidate") if at % 2 else ("candidate", "stable"):
            took = _seconds(sides[which], asking, row)
            if took is not None and at >= DISCARDED:
                seconds[which].append(took)
    return Round(tuple(seconds["stable"]), tuple(seconds["candidate"]))


def _seconds(side: Side, asking: Asking, row: Row) -> float | None:
    """How long the side's first agent took; None where it did not answer."""
    agent = next(iter(side.agents), None)
    if agent is None or side.signature is None:
        return None
    reply = asking.one(agent, row, side.signature)
    return reply.seconds if isinstance(reply, Answer) else None


GATE: Final = WarmUp()
