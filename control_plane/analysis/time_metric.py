"""Guardrails on times: whole answers, or their first byte. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from control_plane.analysis import eprocess, exceedance, interval, readings
from control_plane.analysis.base import ArmCounts, Figure, Json, Reading, Tick
from control_plane.analysis.comparison import SAFE_ALPHA
from control_plane.analysis.eprocess import Array
from control_plane.analysis.exceedance import Exceedance, Shifts
from control_plane.domain.rollout import Guardrail, Step

_SHOWN: Final = 0.95
"""The quantile that people see; four edges are judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeMetric:
    """One such guardrail. Tolerance and largest regression are factors less 1: 0.3 is 30 % slower."""

    title: str
    default: Guardrail
    by_bucket: Callable[[ArmCounts], tuple[int, ...] | None]
    required: bool

    @property
    def name(self) -> str:
        """Key in the catalogue."""
        return self.default.name

    def applies(self, step: Step) -> bool:
        """Whether requests are split at such a step; times of copies are not compared."""
        return 0.0 < step.weight < 1.0

    def start(self, _guardrail: Guardrail) -> Json:
        """Nothing seen yet, not even which buckets there are."""
        return {"at": None, "bounds_s": []}

    def update(self, guardrail: Guardrail, state: Json, tick: Tick) -> Json:
        """The state after *tick*; the same where the tick says nothing.

        Other buckets than before start it anew: counts in them cannot be added up.
        """
        stable, candidate = (self._read(arm, tick) for arm in (tick.stable, tick.candidate))
        if stable is None or candidate is None or stable.sum() + candidate.sum() == 0.0:
            return tick.without_news(state)
        bounds = list(tick.latency_bounds_s)
        seen = exceedance.of(state) if state["bounds_s"] == bounds else exceedance.start(len(bounds) + 1)
        if tick.is_split:
            seen = exceedance.advance(seen, stable, candidate, _shifts(guardrail, bounds))
        else:
            seen = exceedance.learn(seen, stable)
        return {"at": tick.end_ms, "bounds_s": bounds, **exceedance.dumped(seen)}

    def read(self, guardrail: Guardrail, state: Json, *, alpha: float) -> Reading:
        """What the state says; the figure is the 95 % quantile in seconds."""
        bounds = np.asarray(state["bounds_s"], dtype=np.float64)
        seen = exceedance.of(state) if bounds.size else exceedance.start(1)
        figure = _figure(seen, bounds)
        return readings.reading(
            self.title,
            guardrail,
            readings.Evidenced(
                log_worse=float(seen.log_worse),
                log_safe=float(seen.log_safe),
                alpha=alpha,
                safe_alpha=SAFE_ALPHA,
                stable_n=int(seen.stable.sum()),
                candidate_n=int(seen.candidate.sum()),
                figure=figure,
                values=f"95 % quantile of the candidate {readings.duration(figure.candidate or 0.0)} "
                f"against {readings.duration(figure.stable or 0.0)} of stable",
                excluded=f"a slowdown by {readings.percent(guardrail.max_regression)} or more",
                more_requests=_more(seen, _shifts(guardrail, state["bounds_s"]), alpha)
                if bounds.size
                else None,
            ),
        )

    def _read(self, arm: ArmCounts, tick: Tick) -> Array | None:
        found = self.by_bucket(arm)
        if found is None or len(tick.latency_bounds_s) < 2 or len(found) != len(tick.latency_bounds_s) + 1:
            return None
        return np.asarray(found, dtype=np.float64) if min(found) >= 0 else None


def _shifts(guardrail: Guardrail, bounds_s: list[float]) -> Shifts:
    return exceedance.shifts(bounds_s, tolerance=guardrail.tolerance, max_regression=guardrail.max_regression)


def _figure(seen: Exceedance, bounds_s: Array) -> Figure:
    """Quantiles of both; the difference's interval joins one of each, so it is wide."""
    if not (seen.stable.sum() and seen.candidate.sum()):
        return Figure(stable=None, candidate=None, difference=None, low=None, high=None, unit="s")
    stable = exceedance.quantile_s(seen.stable, bounds_s, _SHOWN)
    candidate = exceedance.quantile_s(seen.candidate, bounds_s, _SHOWN)
    low_s, high_s = _quantile(seen.stable, bounds_s)
    low_c, high_c = _quantile(seen.candidate, bounds_s)
    return Figure(
        stable=stable,
        candidate=candidate,
        difference=None if stable is None or candidate is None else candidate - stable,
        low=None if high_s is None else low_c - high_s,
        high=None if high_c is None else high_c - low_s,
        unit="s",
    )


def _quantile(by_bucket: Array, bounds_s: Array) -> tuple[float, float | None]:
    return interval.quantile(exceedance.beyond(by_bucket), float(by_bucket.sum()), bounds_s, _SHOWN)


def _more(seen: Exceedance, moved: Shifts, alpha: float) -> int | None:
    """Candidate requests to a decision: the edge that is worst, or all edges safe, whichever comes first."""
    n_c, n_s = float(seen.candidate.sum()), float(seen.stable.sum())
    if n_c == 0.0 or n_s < exceedance.LEARN:
        return None
    chosen = exceedance.edges(seen, moved)
    ratio = np.full(chosen.stable.shape, n_s / n_c)
    least = np.maximum(exceedance.BEYOND - chosen.stable, 0.0)
    speeds = eprocess.growth(chosen.candidate, chosen.stable, ratio, least)
    logs = eprocess.log_evidence(seen.safe, eprocess.SAFE_PRIOR)
    waits = [
        readings.remaining(float(log), SAFE_ALPHA, float(speed)) if log < -np.log(SAFE_ALPHA) else 0
        for log, speed in zip(logs, speeds, strict=True)
    ]
    better = bool((chosen.candidate < chosen.stable + least).all())
    known = [wait for wait in waits if wait is not None]
    safe = max(known) if better and len(known) == len(waits) else None
    return readings.sooner(safe, _until_worse(seen, moved, ratio, alpha))


def _until_worse(seen: Exceedance, moved: Shifts, ratio: Array, alpha: float) -> int | None:
    at_edge = exceedance.edges(seen, moved._replace(safe=(moved.tolerance,) * len(exceedance.QUANTILES)))
    slower = at_edge.candidate > at_edge.stable
    if not slower.any():
        return None
    speeds = np.where(slower, eprocess.growth(at_edge.candidate, at_edge.stable, ratio, 0.0), 0.0)
    return readings.remaining(float(seen.log_worse), alpha, float(speeds.max()))
