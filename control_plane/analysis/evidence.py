"""The evidence of one rollout, from its first tick to its last: start, advance, to and from JSON. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from control_plane.analysis import catalog, sample_ratio, slo_guard
from control_plane.analysis.base import Evidence, Json, Tick
from control_plane.domain.rollout import Guardrail

SPLIT: Final = "_split"
FINAL: Final = "_final"
"""States beside the guardrails' own: of the sample-ratio test, and of the guard at weight 1.0."""
_SMOOTHED_S: Final = 60.0


def start(guardrails: Sequence[Guardrail]) -> Evidence:
    """Evidence before any tick."""
    states = {guardrail.name: catalog.get(guardrail.name).start(guardrail) for guardrail in guardrails}
    return Evidence(states={**states, SPLIT: sample_ratio.start(), FINAL: slo_guard.start()})


def advance(evidence: Evidence, tick: Tick, guardrails: Sequence[Guardrail]) -> Evidence:
    """The evidence after *tick*; the same where *tick* ends no later than one that was counted.

    A tick in which the weight changed, or is not known, counts requests and nothing else.
    """
    if evidence.last_tick_ms is not None and tick.end_ms <= evidence.last_tick_ms:
        return evidence
    candidate, stable = max(tick.candidate.requests, 0), max(tick.stable.requests, 0)
    copies = tick.pairs.compared if tick.pairs else 0
    busy = candidate + stable + copies + tick.repeated > 0
    return replace(
        evidence,
        ticks=evidence.ticks + 1,
        last_tick_ms=tick.end_ms,
        last_data_ms=tick.end_ms if busy else evidence.last_data_ms,
        candidate_requests=evidence.candidate_requests + candidate,
        stable_requests=evidence.stable_requests + stable,
        rate=_rate(evidence, candidate + copies, tick.span_s),
        states=evidence.states if tick.weight is None else _states(evidence, tick, guardrails),
    )


def to_json(evidence: Evidence) -> Json:
    """*evidence* as plain JSON; `from_json` gives it back bit for bit."""
    return {
        "ticks": evidence.ticks,
        "last_tick_ms": evidence.last_tick_ms,
        "last_data_ms": evidence.last_data_ms,
        "candidate_requests": evidence.candidate_requests,
        "stable_requests": evidence.stable_requests,
        "rate": evidence.rate,
        "states": dict(evidence.states),
    }


def from_json(state: Json) -> Evidence:
    """The evidence that `to_json` wrote."""
    return Evidence(**state)


def _states(evidence: Evidence, tick: Tick, guardrails: Sequence[Guardrail]) -> dict[str, Json]:
    states = dict(evidence.states)
    for guardrail in guardrails:
        metric = catalog.get(guardrail.name)
        state = states.get(guardrail.name) or metric.start(guardrail)
        states[guardrail.name] = metric.update(guardrail, state, tick)
    states[SPLIT] = sample_ratio.update(states[SPLIT], tick)
    if tick.weight is not None and tick.weight >= 1.0:
        states[FINAL] = slo_guard.update(states[FINAL], evidence.states, tick, guardrails)
    return states


def _rate(evidence: Evidence, requests: int, span_s: float) -> float:
    """The candidate's requests and copies per second, smoothed over about a minute."""
    if not span_s > 0.0:  # neither is not-a-number
        return evidence.rate
    now = requests / span_s
    if evidence.ticks == 0:
        return now
    return evidence.rate + (1.0 - math.exp(-span_s / _SMOOTHED_S)) * (now - evidence.rate)
