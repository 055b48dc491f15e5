"""Copied requests that both versions answered differently, against a fixed budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from control_plane.analysis import budget, readings
from control_plane.analysis.base import Figure, Json, Reading, Tick
from control_plane.analysis.budget import Budget
from control_plane.analysis.comparison import SAFE_ALPHA
from control_plane.domain.rollout import Guardrail, Step

_LEAST: Final = 1e-4
"""The smallest budget: nobody can prove that nothing at all differs."""


_DEFAULT: Final = Guardrail("disagreement", tolerance=0.02, max_regression=0.02, alpha_share=0.04)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """tolerance: the share that may differ; max_regression: the share that "safe" stays below."""

    name: str = "disagreement"
    title: str = "disagreement on copies"
    required: bool = True
    default: Guardrail = _DEFAULT

    def applies(self, step: Step) -> bool:
        """Whether copies are sent at such a step."""
        return step.mirror > 0.0

    def start(self, _guardrail: Guardrail) -> Json:
        """No copies yet."""
        return {"at": None, **budget.dumped(budget.start())}

    def update(self, guardrail: Guardrail, state: Json, tick: Tick) -> Json:
        """The state after *tick*; the same where no copies were compared."""
        pairs = tick.pairs
        if pairs is None or pairs.compared <= 0 or not 0 <= pairs.disagreed <= pairs.compared:
            return state
        above, within = _budgets(guardrail)
        seen = budget.advance(budget.of(state), pairs.compared, pairs.disagreed, above=above, within=within)
        return {"at": tick.end_ms, **budget.dumped(seen)}

    def read(self, guardrail: Guardrail, state: Json, *, alpha: float) -> Reading:
        """What the state says; the figure's "candidate" is the share of copies that differ."""
        seen = budget.of(state)
        share = seen.e / seen.n if seen.n else None
        return readings.reading(
            self.title,
            guardrail,
            readings.Evidenced(
                log_worse=seen.log_above,
                log_safe=seen.log_within,
                alpha=alpha,
                safe_alpha=SAFE_ALPHA,
                stable_n=seen.n,
                candidate_n=seen.n,
                figure=Figure(
                    stable=None, candidate=share, difference=share, low=None, high=None, unit="share"
                ),
                values=f"{readings.percent(share or 0.0)} of {seen.n} copies, "
                f"budget {readings.percent(_budgets(guardrail)[0])}",
                excluded=f"a share of {readings.percent(_budgets(guardrail)[1])} or more",
                more_requests=_more(guardrail, seen, alpha),
            ),
        )


def _budgets(guardrail: Guardrail) -> tuple[float, float]:
    above, within = (
        min(max(share, _LEAST), 1.0 - _LEAST) for share in (guardrail.tolerance, guardrail.max_regression)
    )
    return above, within


def _more(guardrail: Guardrail, seen: Budget, alpha: float) -> int | None:
    if not seen.n:
        return None
    above, within = _budgets(guardrail)
    rate = (seen.e + 0.5) / (seen.n + 1.0)
    worse = readings.remaining(seen.log_above, alpha, budget.growth(rate, above)) if rate > above else None
    safe = (
        readings.remaining(seen.log_within, SAFE_ALPHA, budget.growth(rate, within))
        if rate < within
        else None
    )
    return readings.sooner(worse, safe)


METRIC = Disagreement()
