"""Drift of outputs: whether a class, or a bin of values, has become more frequent than with stable.

The bins are chosen from stable's first answers: the most frequent labels, and one for all others. For each a
2x2 e-process asks whether its share has risen; where a distribution changes, some share rises. Their mean is
an e-process again. With enough traffic a harmless shift is proven too, so "worse" also asks for a size: a
population stability index (PSI) of at least 0.1. Safe: no share rises by the largest regression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from control_plane.analysis import comparison, eprocess, readings
from control_plane.analysis.base import Figure, Json, Reading, Tick
from control_plane.analysis.comparison import SAFE_ALPHA, Comparison
from control_plane.analysis.eprocess import Array, Counts
from control_plane.domain.rollout import Guardrail, Step

PSI_LIMIT: Final = 0.1
LEARN: Final = 200
"""Answers of stable from which the bins are chosen."""
MOST_BINS: Final = 16
_MOST_LABELS: Final = 256
"""Labels that are remembered while bins are not chosen yet."""
_RARE: Final = 0.01
"""Share below which a label has no bin of its own."""
OTHER: Final = "(other)"


_DEFAULT: Final = Guardrail("outputs", tolerance=0.0, max_regression=0.1, alpha_share=0.04)


@dataclass(frozen=True, slots=True)
class Outputs:
    """The guardrail on the distribution of outputs."""

    name: str = "outputs"
    title: str = "output drift"
    required: bool = False
    default: Guardrail = _DEFAULT

    def applies(self, step: Step) -> bool:
        """Whether both versions answer at such a step; copies count."""
        return 0.0 < step.weight < 1.0 or step.mirror > 0.0

    def start(self, _guardrail: Guardrail) -> Json:
        """No answers yet."""
        return {"at": None, "labels": {}, "bins": []}

    def update(self, guardrail: Guardrail, state: Json, tick: Tick) -> Json:
        """The state after *tick*; the same where no outputs were told."""
        stable, candidate = _sound(tick.stable.outputs), _sound(tick.candidate.outputs)
        if stable is None or candidate is None or not (stable or candidate):
            return state
        if not state["bins"]:
            return {**_learned(state, stable), "at": tick.end_ms}
        n_s, e_s = _binned(stable, state["bins"])
        n_c, e_c = _binned(candidate, state["bins"])
        seen, counts = comparison.of(state), Counts(n_c, e_c, n_s, e_s)
        if tick.is_split or tick.is_copied:
            seen = comparison.advance(
                seen, counts, tolerance=guardrail.tolerance, max_regression=guardrail.max_regression
            )
        else:
            seen = comparison.learn(seen, counts)
        return {"at": tick.end_ms, "labels": {}, "bins": state["bins"], **comparison.dumped(seen)}

    def read(self, guardrail: Guardrail, state: Json, *, alpha: float) -> Reading:
        """What the state says; the figure is the PSI."""
        if not state["bins"]:
            return self._learning(guardrail, state, alpha)
        seen = comparison.of(state)
        index = psi(seen.past)
        even = np.full(len(state["bins"]), 1.0 / len(state["bins"]))
        return readings.reading(
            self.title,
            guardrail,
            readings.Evidenced(
                log_worse=float(eprocess.log_evidence(seen.log_worse, even)),
                log_safe=float(seen.log_safe.min()),
                alpha=alpha,
                safe_alpha=SAFE_ALPHA,
                stable_n=int(seen.past.n_s[0]),
                candidate_n=int(seen.past.n_c[0]),
                figure=Figure(
                    stable=None, candidate=index, difference=index, low=None, high=None, unit="PSI"
                ),
                values=f"{_most_changed(seen.past, state['bins'])}, PSI {index or 0.0:.2f}",
                excluded=f"a class more frequent by {readings.percent(guardrail.max_regression)} of all",
                limit=min((index or 0.0) / PSI_LIMIT, 1.0),
                more_requests=_more(guardrail, seen),
            ),
        )

    def _learning(self, guardrail: Guardrail, state: Json, alpha: float) -> Reading:
        told = readings.reading(
            self.title,
            guardrail,
            readings.Evidenced(
                log_worse=0.0,
                log_safe=0.0,
                alpha=alpha,
                safe_alpha=SAFE_ALPHA,
                stable_n=sum(state["labels"].values()),
                candidate_n=0,
                figure=Figure(stable=None, candidate=None, difference=None, low=None, high=None, unit="PSI"),
                values="",
                excluded="",
            ),
        )
        if not state["labels"]:
            return told
        sentence = f"{self.title}: learning the classes from stable's first {LEARN} answers"
        return replace(told, outcome=readings.UNDECIDED, sentence=sentence)


def psi(past: Counts) -> float | None:
    """Population stability index of the candidate against stable; None without answers of both."""
    n_c, e_c, n_s, e_s = past
    if not (n_c[0] and n_s[0]):
        return None
    bins = len(e_c)
    candidate, stable = (e_c + 0.5) / (n_c + 0.5 * bins), (e_s + 0.5) / (n_s + 0.5 * bins)
    return float(((candidate - stable) * np.log(candidate / stable)).sum())


def _sound(outputs: Mapping[str, int] | None) -> dict[str, int] | None:
    """Answers by label in the labels' order; None where nothing was told, or nothing that makes sense."""
    if outputs is None or any(count < 0 for count in outputs.values()):
        return None
    return {label: outputs[label] for label in sorted(outputs) if outputs[label]}


def _learned(state: Json, stable: Mapping[str, int]) -> Json:
    """The state after more of stable's first answers; with bins once there are enough."""
    labels = dict(state["labels"])
    for label, count in stable.items():
        key = label if label in labels or len(labels) < _MOST_LABELS else OTHER
        labels[key] = labels.get(key, 0) + count
    if sum(labels.values()) < LEARN:
        return {"labels": labels, "bins": []}
    bins = _chosen(labels)
    past = comparison.start((len(bins),))
    n_s, e_s = _binned(labels, bins)
    return {"labels": {}, "bins": bins, **comparison.dumped(comparison.learn(past, _of_stable(n_s, e_s)))}


def _of_stable(n_s: Array, e_s: Array) -> Counts:
    none = np.zeros_like(n_s)
    return Counts(none, none, n_s, e_s)


def _chosen(labels: Mapping[str, int]) -> list[str]:
    least = _RARE * sum(labels.values())
    often = sorted(
        (label for label, count in labels.items() if count >= least and label != OTHER),
        key=lambda label: (-labels[label], label),
    )
    return [*often[: MOST_BINS - 1], OTHER]


def _binned(outputs: Mapping[str, int], bins: list[str]) -> tuple[Array, Array]:
    """All answers (the same number for every bin), and those in each bin."""
    total = float(sum(outputs.values()))
    own = [float(outputs.get(label, 0)) for label in bins[:-1]]
    return np.full(len(bins), total), np.array([*own, total - sum(own)])


def _most_changed(past: Counts, bins: list[str]) -> str:
    candidate, stable = past.e_c / np.maximum(past.n_c, 1.0), past.e_s / np.maximum(past.n_s, 1.0)
    most = int(np.abs(candidate - stable).argmax())
    return (
        f"{bins[most]} is {readings.percent(float(candidate[most]))} of the candidate's answers "
        f"against {readings.percent(float(stable[most]))} of stable's"
    )


def _more(guardrail: Guardrail, seen: Comparison) -> int | None:
    """Candidate answers until every share is safe, were they what they seem to be."""
    n_c, e_c, n_s, e_s = seen.past
    if not (n_c[0] and n_s[0]):
        return None
    stable, candidate = eprocess.shrunken(e_s, n_s), eprocess.shrunken(e_c, n_c)
    if (candidate >= stable + guardrail.max_regression).any():
        return None
    speeds = eprocess.growth(candidate, stable, n_s / n_c, guardrail.max_regression)
    slowest = int((seen.log_safe / np.maximum(speeds, 1e-12)).argmin())
    return readings.remaining(float(seen.log_safe[slowest]), SAFE_ALPHA, float(speeds[slowest]))


METRIC = Outputs()
