"""`golden-set`: on fixed items the candidate is not worse than stable by more than the endpoint allows.

Both answer the same items; `paired` bounds the loss of accuracy. The candidate passes when the bound is
within the margin, or, where the items are too few for that, when it gets at least as many of them right as
stable: the sentence then says what they do prove.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from control_plane.domain.golden import GoldenItem
from control_plane.gates import answers
from control_plane.gates.asking import Asking, Refused, Reply
from control_plane.gates.base import Finding, Outcome
from control_plane.gates.paired import Paired, enough_items
from control_plane.gates.scene import Golden, Scene

HOW_TO_ADD: Final = (
    "there is no golden set, and stable has no labelled examples; "
    "add one with `signalbox golden add MODEL FILE` and name its digest in the endpoint's rollout policy"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What both did on the items."""

    paired: Paired
    source: str
    """Where the items are from, for people."""
    margin: float
    """Largest loss of accuracy that is let through, in [0, 1)."""
    broken: int = 0
    """Items on which the candidate's outputs are not finite, and stable's are."""
    unanswered: int = 0
    """Items that the candidate answered with an error, or not at all, and stable did answer."""
    first_error: str = ""
    classless: bool = False
    """Whether there are labels, and not one of stable's answers holds a class."""
    named: bool = True
    """Whether the endpoint's policy names the items."""


class GoldenSetGate:
    """Compares on the policy's golden set, or on stable's own labelled examples."""

    name = "golden-set"
    title = "Golden set"
    always = False
    decisive = False

    def inapplicable(self, scene: Scene) -> str | None:
        """Without items there is nothing to compare on; a named set that is missing fails instead."""
        return HOW_TO_ADD if scene.golden is None and scene.golden_problem is None else None

    def gather(self, scene: Scene, asking: Asking) -> Compared | str:
        """Ask both for every item; the sentence on what is wrong with the golden set where it is."""
        golden = scene.golden
        if golden is None:
            return scene.golden_problem or HOW_TO_ADD
        count = _Count(scene)
        rows = [item.inputs for item in golden.items]
        replies = asking.both(scene.stable, scene.candidate, rows)
        for item, (stable, candidate) in zip(golden.items, replies, strict=True):
            count.add(item, stable, candidate)
        return count.compared(golden)

    def decide(self, evidence: Compared | str) -> Finding:
        """See the module."""
        if isinstance(evidence, str):
            return Finding(Outcome.FAILED, evidence)
        figures = _figures(evidence)
        if evidence.classless:
            said = f"{answers.NO_CLASS}; a golden set with reference outputs would do"
            return Finding(Outcome.FAILED if evidence.named else Outcome.NOT_APPLICABLE, said, figures)
        if evidence.broken:
            said = f"NaN or infinite outputs on {evidence.broken} of {evidence.paired.items} items"
            return Finding(Outcome.FAILED, f"{said} where stable's are finite", figures)
        outcome = Outcome.PASSED if _passes(evidence) else Outcome.FAILED
        return Finding(outcome, _sentence(evidence), figures)


class _Count:
    """Adds up replies, item by item."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._pairs: Counter[tuple[bool, bool]] = Counter()
        self._broken = self._unanswered = self._labels = self._classes = 0
        self._first_error = ""

    def add(self, item: GoldenItem, stable: Reply, candidate: Reply) -> None:
        ours, theirs = self._scene.stable.labels, self._scene.candidate.labels
        right = (answers.is_right(item, stable, ours), answers.is_right(item, candidate, theirs))
        self._pairs[right] += 1
        if item.label is not None:
            self._labels += 1
            self._classes += answers.decision(stable, ours) is not None
        if isinstance(candidate, Refused):
            if not isinstance(stable, Refused):
                self._unanswered += 1
                self._first_error = self._first_error or candidate.sentence
        elif answers.is_finite(stable) and not answers.is_finite(candidate):
            self._broken += 1

    def compared(self, golden: Golden) -> Compared:
        pairs = self._pairs
        return Compared(
            paired=Paired(pairs[True, True], pairs[True, False], pairs[False, True], pairs[False, False]),
            source=golden.source,
            named=golden.named,
            margin=self._scene.golden_margin,
            broken=self._broken,
            unanswered=self._unanswered,
            first_error=self._first_error,
            classless=bool(self._labels) and not self._classes,
        )


def _passes(evidence: Compared) -> bool:
    paired = evidence.paired
    return paired.loss_bound <= evidence.margin or paired.lost <= paired.won


def _sentence(evidence: Compared) -> str:
    paired, bound = evidence.paired, evidence.paired.loss_bound
    said = (
        f"{paired.candidate_share:.1%} right against {paired.stable_share:.1%} of stable on "
        f"{paired.items} items of {evidence.source}"
    )
    if evidence.unanswered:
        said += f"; {evidence.unanswered} were not answered ({evidence.first_error})"
    at_most = f"with 95 % confidence it loses at most {max(0.0, bound):.1%}"
    if bound <= evidence.margin:
        return f"{said}; {at_most}"
    if paired.lost <= paired.won:
        return f"{said}; too few items to prove a loss within {evidence.margin:.1%}: {at_most}"
    return f"{said}; {at_most}, and {evidence.margin:.1%} is let through"


def _figures(evidence: Compared) -> dict[str, object]:
    paired = evidence.paired
    return {
        "items": paired.items,
        "stable_accuracy": paired.stable_share,
        "candidate_accuracy": paired.candidate_share,
        "lost": paired.lost,
        "won": paired.won,
        "loss_bound": paired.loss_bound,
        "margin": evidence.margin,
        "enough_items": enough_items(evidence.margin) if evidence.margin > 0 else None,
        "nonfinite": evidence.broken,
        "unanswered": evidence.unanswered,
        "source": evidence.source,
    }


GATE: Final = GoldenSetGate()
