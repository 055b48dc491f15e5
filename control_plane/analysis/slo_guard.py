"""The guard at weight 1.0, where no control is left: the candidate against what stable did before. Pure.

At the first tick at full weight stable's rates are frozen: each share (errors, failed tries, NaN) with its
largest regression added, and for times the bucket edge near stable's 95 % quantile, stretched by the
largest regression. One-sample e-processes then test "the candidate stays within". In one respect it is
weaker than a comparison: an incident that would hit either version looks like the candidate's. The answer to
it, a rollback to a version that is warm, does no harm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from control_plane.analysis import budget, catalog, comparison, eprocess, exceedance, readings
from control_plane.analysis.base import Figure, Json, Metric, Reading, Tick
from control_plane.analysis.comparison import SAFE_ALPHA
from control_plane.analysis.share_metric import ShareMetric
from control_plane.analysis.time_metric import TimeMetric
from control_plane.domain.rollout import Guardrail

SHARE: Final = 0.05
"""The part of a rollout's chance of a false rollback that is kept for this guard; all its bars divide it."""
_QUANTILE: Final = 0.95
_HIGHEST: Final = 0.999


def start() -> Json:
    """Nothing is frozen before the first tick at full weight."""
    return {"bars": {}}


def update(state: Json, frozen: Mapping[str, Json], tick: Tick, guardrails: Sequence[Guardrail]) -> Json:
    """The state after a *tick* at full weight. frozen: the guardrails' states, with all that stable did."""
    bars = state["bars"] or _bars(frozen, guardrails)
    return {"bars": {name: _counted(bar, catalog.get(name), tick) for name, bar in bars.items()}}


def read(state: Json, guardrails: Sequence[Guardrail], *, alpha: float) -> tuple[Reading, ...]:
    """One reading a bar. alpha: the rollout's chance of a false rollback."""
    known = [guardrail for guardrail in guardrails if guardrail.name in state["bars"]]
    return tuple(
        _reading(guardrail, state["bars"][guardrail.name], alpha * SHARE / len(known)) for guardrail in known
    )


def _bars(frozen: Mapping[str, Json], guardrails: Sequence[Guardrail]) -> dict[str, Json]:
    made = {guardrail.name: _bar(guardrail, frozen.get(guardrail.name)) for guardrail in guardrails}
    return {name: bar for name, bar in made.items() if bar is not None}


def _bar(guardrail: Guardrail, state: Json | None) -> Json | None:
    """What the candidate is held to; None for what cannot be judged without a control."""
    if state is None:
        return None
    metric = catalog.get(guardrail.name)
    if isinstance(metric, ShareMetric):
        past = comparison.of(state).past
        stable = float(eprocess.shrunken(past.e_s, past.n_s))
        limit = min(stable + max(guardrail.max_regression, guardrail.tolerance), _HIGHEST)
        return {"stable": stable, "limit": limit, "edge_s": None, **budget.dumped(budget.start())}
    return _time_bar(guardrail, state) if isinstance(metric, TimeMetric) else None


def _time_bar(guardrail: Guardrail, state: Json) -> Json | None:
    """The share beyond stable's 95 % edge, asked of the candidate at the stretched edge."""
    bounds = state["bounds_s"]
    if not bounds:
        return None
    seen = exceedance.of(state)
    if seen.stable.sum() < exceedance.LEARN:
        return None
    allowed = max(guardrail.max_regression, guardrail.tolerance)
    moved = exceedance.shifts(bounds, tolerance=allowed, max_regression=allowed)
    at = exceedance.QUANTILES.index(_QUANTILE)
    chosen = exceedance.edges(seen, moved)
    stable = float(chosen.stable[at])
    edge = int(chosen.at[at])
    edge_s = bounds[min(edge + moved.tolerance + int(moved.floor[edge]), len(bounds) - 1)]
    limit = max(stable, 1.0 - _QUANTILE)
    return {"stable": stable, "limit": limit, "edge_s": edge_s, **budget.dumped(budget.start())}


def _counted(bar: Json, metric: Metric, tick: Tick) -> Json:
    found = _of_tick(bar, metric, tick)
    if found is None or not 0 <= found[1] <= found[0]:
        return bar
    seen = budget.advance(budget.of(bar), *found, above=bar["limit"], within=bar["limit"])
    return {**bar, **budget.dumped(seen)}


def _of_tick(bar: Json, metric: Metric, tick: Tick) -> tuple[int, int] | None:
    if isinstance(metric, ShareMetric):
        return metric.counted(tick.candidate)
    if not isinstance(metric, TimeMetric):
        return None
    times = metric.by_bucket(tick.candidate)
    if times is None or bar["edge_s"] not in tick.latency_bounds_s:
        return None
    above = tick.latency_bounds_s.index(bar["edge_s"]) + 1
    return sum(times), sum(times[above:])


def _reading(guardrail: Guardrail, bar: Json, alpha: float) -> Reading:
    seen = budget.of(bar)
    share = seen.e / seen.n if seen.n else None
    beyond = f" beyond {readings.duration(bar['edge_s'])}" if bar["edge_s"] is not None else ""
    return readings.reading(
        catalog.get(guardrail.name).title,
        guardrail,
        readings.Evidenced(
            log_worse=seen.log_above,
            log_safe=seen.log_within,
            alpha=alpha,
            safe_alpha=SAFE_ALPHA,
            stable_n=seen.n,
            candidate_n=seen.n,
            figure=Figure(
                stable=bar["stable"],
                candidate=share,
                difference=None if share is None else share - bar["stable"],
                low=None,
                high=None,
                unit="share",
            ),
            values=f"candidate {readings.percent(share or 0.0)}{beyond}, "
            f"at most {readings.percent(bar['limit'])} by what stable did before",
            excluded=f"{readings.percent(bar['limit'])}{beyond} or more",
            more_requests=_more(bar, alpha),
        ),
    )


def _more(bar: Json, alpha: float) -> int | None:
    seen = budget.of(bar)
    rate = float(np.clip((seen.e + bar["limit"]) / (seen.n + 1.0), 0.0, 1.0))
    growth = budget.growth(rate, bar["limit"])
    if rate > bar["limit"]:
        return readings.remaining(seen.log_above, alpha, growth)
    return readings.remaining(seen.log_within, SAFE_ALPHA, growth)
