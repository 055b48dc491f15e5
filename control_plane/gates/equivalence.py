"""`equivalence`: a candidate that is stable, optimised, still answers as stable does.

Both answer the same inputs. They agree on an input when their likeliest class (or last token) is the same;
where outputs hold none, when they differ by VALUE_TOLERANCE of their magnitude at most. What must be reached
is the budget that the optimisation lab judged the candidate by, and the rule is the lab's
(`domain.acceptance`): proven agreement, or hardly fewer right answers. A candidate that no lab has judged
must agree.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from control_plane.domain import acceptance, binomial
from control_plane.domain.golden import GoldenItem
from control_plane.domain.optimization import Answers, Budget
from control_plane.gates import answers
from control_plane.gates.asking import Answer, Asking, Reply
from control_plane.gates.base import Finding, Outcome
from control_plane.gates.infer_codec import Row
from control_plane.gates.paired import ALPHA
from control_plane.gates.scene import Scene
from serving_agent.datatypes import FLOATS
from serving_agent.messages import OutputTensor

VALUE_TOLERANCE: Final = 0.02
LARGEST: Final = sys.float_info.max


@dataclass(slots=True)
class Drift:
    """How far one floating-point output has moved."""

    max_error: float = 0.0
    error_sum: float = 0.0
    elements: int = 0
    min_cosine: float = 1.0

    def add(self, stable: np.ndarray[Any, Any], candidate: np.ndarray[Any, Any]) -> None:
        """Count two finite arrays of one shape, of float64; figures stop at the largest double."""
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.abs(stable - candidate)
            self.max_error = min(LARGEST, max(self.max_error, float(error.max(initial=0.0))))
            self.error_sum = min(LARGEST, self.error_sum + float(error.sum()))
            lengths = float(np.linalg.norm(stable) * np.linalg.norm(candidate))
            along = float(stable.ravel() @ candidate.ravel())
        self.elements += error.size
        if 0 < lengths <= LARGEST:
            self.min_cosine = min(self.min_cosine, along / lengths)

    def figures(self) -> dict[str, float]:
        """As plain JSON."""
        mean = self.error_sum / self.elements if self.elements else 0.0
        return {"max_error": self.max_error, "mean_error": mean, "min_cosine": self.min_cosine}


@dataclass(slots=True)
class Agreement:
    """What both said to the same inputs; drift: by output, over answers that are finite."""

    method: str
    budget: Budget | None = None
    """What the lab judged the candidate by; None where it did not."""
    items: int = 0
    agreed: int = 0
    broken: int = 0
    """Inputs that the candidate answers with an error, NaN or infinity."""
    labelled: int = 0
    stable_right: int = 0
    candidate_right: int = 0
    drift: dict[str, Drift] = field(default_factory=dict)

    @property
    def answers(self) -> Answers:
        """As the lab's rule takes it."""
        judged = self.budget is not None and not self.broken
        return Answers(
            rows=self.items,
            agreed=self.agreed,
            agreement_bound=binomial.lower(self.agreed, self.items, ALPHA),
            max_error=max((each.max_error for each in self.drift.values()), default=0.0),
            mean_error=0.0,
            min_cosine=min((each.min_cosine for each in self.drift.values()), default=1.0),
            mean_cosine=1.0,
            labelled=self.labelled if judged else 0,
            parent_right=self.stable_right,
            variant_right=self.candidate_right,
            broken=self.broken,
        )


class Equivalence:
    """Applies to optimised variants of the very version that is stable."""

    name = "equivalence"
    title = "Equivalence"
    always = False
    decisive = False

    def inapplicable(self, scene: Scene) -> str | None:
        """Only what was made from stable by a method must answer as stable does."""
        if scene.optimisation is None:
            return f"{scene.candidate.ref} is not an optimised variant of {scene.stable.ref}"
        return None if _rows(scene) else "there are neither golden items nor example inputs to compare on"

    def gather(self, scene: Scene, asking: Asking) -> Agreement:
        """Ask both for every input, and compare."""
        seen = Agreement(scene.optimisation or "", scene.budget)
        replies = asking.both(scene.stable, scene.candidate, _rows(scene))
        for item, (stable, candidate) in zip(_items(scene), replies, strict=True):
            if not isinstance(stable, Answer) or not answers.is_finite(stable):
                continue  # what stable cannot answer either says nothing
            seen.items += 1
            seen.agreed += agree(stable, candidate, scene.stable.labels, scene.candidate.labels)
            seen.broken += not answers.is_finite(candidate)
            if item is not None and item.label is not None:
                seen.labelled += 1
                seen.stable_right += answers.is_right(item, stable, scene.stable.labels)
                seen.candidate_right += answers.is_right(item, candidate, scene.candidate.labels)
            _measure(seen.drift, stable, candidate)
        return seen

    def decide(self, evidence: Agreement) -> Finding:
        """See the module."""
        if not evidence.items:
            return Finding(Outcome.NOT_APPLICABLE, "stable answers none of the inputs to compare on")
        seen, budget = evidence.answers, evidence.budget or Budget()
        figures = {
            "items": seen.rows,
            "agreed": seen.agreed,
            "agreement": seen.agreement,
            "lower_bound": seen.agreement_bound,
            "method": evidence.method,
            "outputs": {name: each.figures() for name, each in evidence.drift.items()},
        }
        said = (
            f"{evidence.method}: the same answer on {seen.agreed} of {seen.rows} inputs; "
            f"with 95 % confidence on at least {seen.agreement_bound:.2%}"
        )
        if seen.agreement_bound >= budget.min_agreement:
            return Finding(Outcome.PASSED, said, figures)
        if acceptance.agreement_holds(seen, budget):
            enough = acceptance.enough_rows(budget.min_agreement)
            more = f"{enough} inputs would prove {budget.min_agreement:.1%}"
            return Finding(Outcome.PASSED, f"{said} ({more})", figures)
        right = (
            f"right on {seen.variant_right} of {seen.labelled} labelled inputs, stable on {seen.parent_right}"
        )
        if acceptance.metric_holds(seen, budget):
            return Finding(
                Outcome.PASSED, f"{said}; {right}, and {budget.max_metric_drop:.1%} may be lost", figures
            )
        needed = f"{said}, and {budget.min_agreement:.1%} is needed"
        if seen.labelled:
            needed += f"; {right}, and {budget.max_metric_drop:.1%} may be lost"
        return Finding(Outcome.FAILED, needed, figures)


def agree(stable: Answer, candidate: Reply, ours: answers.Labels, theirs: answers.Labels) -> bool:
    """Whether a reply comes to the same as stable's finite answer; never where it is not finite itself."""
    if not isinstance(candidate, Answer) or not answers.is_finite(candidate):
        return False
    decided = answers.decision(stable, ours)
    if decided is not None:
        return decided == answers.decision(candidate, theirs)
    return _close(stable.outputs, candidate.outputs)


def _close(stable: Sequence[OutputTensor], candidate: Sequence[OutputTensor]) -> bool:
    others = {output.name: output for output in candidate}
    return all(output.name in others and _near(output, others[output.name]) for output in stable)


def _near(stable: OutputTensor, candidate: OutputTensor) -> bool:
    if stable.array.shape != candidate.array.shape:
        return False
    if stable.datatype not in FLOATS:
        return bool((stable.array == candidate.array).all())
    difference = answers.relative_difference(
        stable.array.astype(np.float64), candidate.array.astype(np.float64)
    )
    return difference <= VALUE_TOLERANCE


def _measure(drift: dict[str, Drift], stable: Answer, candidate: Reply) -> None:
    if not isinstance(candidate, Answer) or not answers.is_finite(candidate):
        return
    others = {output.name: output for output in candidate.outputs}
    for output in stable.outputs:
        other = others.get(output.name)
        if output.datatype in FLOATS and other is not None and other.array.shape == output.array.shape:
            drift.setdefault(output.name, Drift()).add(
                output.array.astype(np.float64), other.array.astype(np.float64)
            )


def _items(scene: Scene) -> Sequence[GoldenItem | None]:
    """What is right for each of `_rows`; None where nobody has said."""
    return scene.golden.items if scene.golden else [None] * len(scene.examples)


def _rows(scene: Scene) -> Sequence[Row]:
    return [item.inputs for item in scene.golden.items] if scene.golden else scene.examples


GATE: Final = Equivalence()
