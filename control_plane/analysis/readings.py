"""What the evidence of one guardrail amounts to, in shares, progress and words. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from control_plane.analysis.base import Figure, Reading
from control_plane.domain.rollout import Guardrail

WORSE: Final = "worse"
SAFE: Final = "safe"
UNDECIDED: Final = "undecided"
NO_DATA: Final = "no_data"
NOT_APPLICABLE: Final = "not_applicable"

_SLOWEST: Final = 1e-9
"""Growth of the log-evidence per request below which no time to a decision is named."""
_MOST: Final = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidenced:
    """What a metric has found out: from this its reading is made."""

    log_worse: float
    log_safe: float
    alpha: float
    """Chance of a false "worse" that it may use up."""
    safe_alpha: float
    stable_n: int
    candidate_n: int
    figure: Figure
    values: str
    """Both values in words: `candidate 5.1 % against 0.4 % of stable`."""
    excluded: str
    """What "safe" excludes, in words: `a rise by 1 % of requests or more`."""
    limit: float = 1.0
    """Progress, in [0, 1], of the size of the effect to what must be reached beside the evidence."""
    more_requests: int | None = None


def reading(title: str, guardrail: Guardrail, seen: Evidenced) -> Reading:
    """The reading of one guardrail."""
    worse = min(progress(seen.log_worse, seen.alpha), seen.limit)
    safe = progress(seen.log_safe, seen.safe_alpha)
    outcome = _outcome(seen, worse, safe)
    return Reading(
        name=guardrail.name,
        title=title,
        outcome=outcome,
        sentence=f"{title}: {_said(outcome, seen)}",
        worse=worse,
        safe=safe,
        figure=seen.figure,
        stable_n=seen.stable_n,
        candidate_n=seen.candidate_n,
        tolerance=guardrail.tolerance,
        max_regression=guardrail.max_regression,
        observe_only=guardrail.observe_only,
        log_evidence=seen.log_worse,
        more_requests=seen.more_requests if outcome == UNDECIDED else None,
    )


def progress(log_evidence: float, alpha: float) -> float:
    """How far the evidence has come to 1/*alpha*, by its logarithm, in [0, 1]."""
    if alpha <= 0.0:
        return 0.0
    return min(max(log_evidence, 0.0) / -math.log(alpha), 1.0) if alpha < 1.0 else 1.0


def remaining(log_evidence: float, alpha: float, growth: float) -> int | None:
    """Candidate requests until the evidence reaches 1/*alpha*; None where it does not grow."""
    if growth < _SLOWEST or not 0.0 < alpha < 1.0:
        return None
    return min(max(math.ceil((-math.log(alpha) - log_evidence) / growth), 1), _MOST)


def sooner(*estimates: int | None) -> int | None:
    """The least of the estimates that say something."""
    known = [estimate for estimate in estimates if estimate is not None]
    return min(known) if known else None


def percent(share: float) -> str:
    """A share in words: `0.42 %`, `5.1 %`, `37 %`."""
    value = 100.0 * share
    if abs(value) >= 10.0:
        return f"{value:.0f} %"
    return f"{value:.1f} %" if abs(value) >= 1.0 else f"{value:.2g} %"


def duration(seconds: float) -> str:
    """A time in words: `3.1 ms`, `112 ms`, `1.24 s`."""
    if seconds >= 1.0:
        return f"{seconds:.2f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.2g} ms"


def _outcome(seen: Evidenced, worse: float, safe: float) -> str:
    if seen.candidate_n == 0 or seen.stable_n == 0:
        return NO_DATA
    if worse >= 1.0:
        return WORSE
    return SAFE if safe >= 1.0 else UNDECIDED


def _said(outcome: str, seen: Evidenced) -> str:
    if outcome == NO_DATA:
        return "nothing measured yet"
    if outcome == WORSE:
        return seen.values
    if outcome == SAFE:
        return f"{seen.excluded} is excluded ({seen.values})"
    return f"{seen.values}, not decided yet"
