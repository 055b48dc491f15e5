"""Whether traffic is split as intended: a sequential sample-ratio test. Pure.

A comparison of versions means nothing when requests do not reach them at random in the intended ratio (a
proxy that did not take the weight over, clients that bypass it, one version refusing connections). Of each
tick's n requests the candidate should get Binomial(n, weight). The Bayes factor of a mixture of other
weights, fixed in log-odds around the intended one, is a martingale under that; it reaches 1/ALPHA with
probability at most ALPHA, whatever the weights do from tick to tick (Lindon, Malek, "Anytime-valid
inference for multinomial count data", arXiv 2011.03567).

Tries are counted where they are known, for a failed try may be repeated at the other version. Ticks in which
many tries fail are left out for the same reason: repeated tries are not split by the weight alone.

By unit it is units that are drawn, each by its own name, so its requests and tries say nothing more. A unit
that comes back at the next weight is not drawn anew: the test then starts again, and may err once a weight.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from control_plane.analysis.base import ArmCounts, Json, Tick
from control_plane.analysis.eprocess import Array

ALPHA: Final = 0.001
SHIFTS: Final[Array] = np.array([-3.0, -1.5, -0.7, -0.3, -0.1, 0.1, 0.3, 0.7, 1.5, 3.0])
"""Alternatives: log-odds of the actual weight against those of the intended one."""
_FAILING: Final = 0.05
"""Share of failed tries from which on a tick is left out."""


def start() -> Json:
    """Nothing seen yet."""
    return {"candidate": 0, "expected": 0.0, "total": 0, "logs": [0.0] * len(SHIFTS)}


def update(state: Json, tick: Tick) -> Json:
    """*state* after *tick*; unchanged where nothing was split, or not by a known weight."""
    if not tick.is_split:
        return state
    if tick.by_unit and state.get("weight") != tick.weight:
        state = {**start(), "weight": tick.weight}
    sent = _units(tick) if tick.by_unit else _requests(tick)
    return _counted(state, *sent, tick.weight) if sent is not None and tick.weight is not None else state


def _counted(state: Json, stable: int, candidate: int, weight: float) -> Json:
    odds = weight / (1.0 - weight) * np.exp(SHIFTS)
    other = odds / (1.0 + odds)
    logs = candidate * np.log(other / weight) + stable * np.log((1.0 - other) / (1.0 - weight))
    return {
        **state,
        "candidate": state["candidate"] + candidate,
        "expected": state["expected"] + weight * (candidate + stable),
        "total": state["total"] + candidate + stable,
        "logs": (np.asarray(state["logs"]) + logs).tolist(),
    }


def log_evidence(state: Json) -> float:
    """Logarithm of the evidence against the intended split."""
    logs = np.asarray(state["logs"])
    highest = logs.max()
    return float(highest + np.log(np.exp(logs - highest).mean()))


def alarmed(state: Json) -> bool:
    """Whether the split is not the intended one."""
    return log_evidence(state) >= -math.log(ALPHA)


def sentence(state: Json) -> str:
    """Observed against intended, for people."""
    total = max(state["total"], 1)
    return (
        f"traffic is not split as intended: the candidate got {state['candidate'] / total:.2%} of requests, "
        f"{state['expected'] / total:.2%} was meant"
    )


def _requests(tick: Tick) -> tuple[int, int] | None:
    """Requests sent to stable and candidate, by tries where both have them; None where many failed."""
    by_try = tick.candidate.tries is not None and tick.stable.tries is not None
    stable, candidate = (_sent(arm, by_try=by_try) for arm in (tick.stable, tick.candidate))
    return (stable, candidate) if stable is not None and candidate is not None else None


def _units(tick: Tick) -> tuple[int, int] | None:
    """Units counted at stable and candidate; None where many tries failed: a repeated one moves its unit."""
    return None if _requests(tick) is None else (tick.stable.requests, tick.candidate.requests)


def _sent(arm: ArmCounts, *, by_try: bool) -> int | None:
    """Requests sent to a version, by tries where both have them; None where too many failed to tell."""
    sent, failed = (arm.tries or 0, arm.failed_tries or 0) if by_try else (arm.requests, arm.errors)
    if sent < 0 or failed > _FAILING * sent:
        return None
    return sent
