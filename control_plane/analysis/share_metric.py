"""Guardrails on a share of requests, tries or answers that counts as bad. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from control_plane.analysis import comparison, eprocess, interval, readings
from control_plane.analysis.base import ArmCounts, Figure, Json, Reading, Tick
from control_plane.analysis.comparison import SAFE_ALPHA, Comparison
from control_plane.domain.rollout import Guardrail, Step

_DRAWN_BY = 50.0
"""Requests by which an estimate of the candidate's rate is drawn to stable's, for times to a decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareMetric:
    """One such guardrail. It is the plug-in: a module of `analysis.metrics` makes one."""

    title: str
    default: Guardrail
    counted: Callable[[ArmCounts], tuple[int, int] | None]
    """All, and of those the bad ones; None where the source said nothing."""
    required: bool
    by_agent: bool = False
    """Whether agents count it, so that copies count as well as requests."""
    by_unit: bool = False
    """Whether it is counted by unit where units are known."""

    @property
    def name(self) -> str:
        """Key in the catalogue."""
        return self.default.name

    def applies(self, step: Step) -> bool:
        """Whether both versions answer at such a step."""
        return 0.0 < step.weight < 1.0 or (self.by_agent and step.mirror > 0.0)

    def start(self, _guardrail: Guardrail) -> Json:
        """Nothing seen yet."""
        return {"at": None, **comparison.dumped(comparison.start())}

    def update(self, guardrail: Guardrail, state: Json, tick: Tick) -> Json:
        """The state after *tick*; the same where the tick says nothing or makes no sense."""
        stable, candidate = self._read(tick.stable), self._read(tick.candidate)
        if stable is None or candidate is None or stable[0] + candidate[0] == 0:
            return tick.without_news(state) if self.by_unit else state
        seen, counts = comparison.of(state), eprocess.counts(*candidate, *stable)
        if tick.is_split or (self.by_agent and tick.is_copied):
            seen = comparison.advance(
                seen, counts, tolerance=guardrail.tolerance, max_regression=guardrail.max_regression
            )
        else:
            seen = comparison.learn(seen, counts)
        return {"at": tick.end_ms, **comparison.dumped(seen)}

    def read(self, guardrail: Guardrail, state: Json, *, alpha: float) -> Reading:
        """What the state says; shares of all."""
        seen = comparison.of(state)
        n_c, e_c, n_s, e_s = (int(value) for value in seen.past)
        stable, candidate = e_s / n_s if n_s else None, e_c / n_c if n_c else None
        middle, low, high = interval.difference(seen.past, seen.strata)
        return readings.reading(
            self.title,
            guardrail,
            readings.Evidenced(
                log_worse=float(seen.log_worse),
                log_safe=float(seen.log_safe),
                alpha=alpha,
                safe_alpha=SAFE_ALPHA,
                stable_n=n_s,
                candidate_n=n_c,
                figure=Figure(
                    stable=stable, candidate=candidate, difference=middle, low=low, high=high, unit="share"
                ),
                values=f"candidate {readings.percent(candidate or 0.0)} "
                f"against {readings.percent(stable or 0.0)} of stable",
                excluded=f"a rise by {readings.percent(guardrail.max_regression)} of all or more",
                more_requests=_more(guardrail, seen, alpha),
            ),
        )

    def _read(self, arm: ArmCounts) -> tuple[int, int] | None:
        found = self.counted(arm)
        return found if found is not None and 0 <= found[1] <= found[0] else None


def _more(guardrail: Guardrail, seen: Comparison, alpha: float) -> int | None:
    """Candidate requests to a decision, were its rate what it seems to be."""
    n_c, e_c, n_s, e_s = seen.past
    if n_c == 0 or n_s == 0:
        return None
    stable = eprocess.shrunken(e_s, n_s)
    candidate = (e_c + _DRAWN_BY * stable) / (n_c + _DRAWN_BY)
    ratio = np.asarray(n_s / n_c)
    worse = safe = None
    if candidate > stable + guardrail.tolerance:
        speed = float(eprocess.growth(candidate, stable, ratio, guardrail.tolerance))
        worse = readings.remaining(float(seen.log_worse), alpha, speed)
    if candidate < stable + guardrail.max_regression:
        speed = float(eprocess.growth(candidate, stable, ratio, guardrail.max_regression))
        safe = readings.remaining(float(seen.log_safe), SAFE_ALPHA, speed)
    return readings.sooner(worse, safe)
