"""What needs no statistics: a candidate that answers nothing but errors while stable does not. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from control_plane.analysis.base import ArmCounts, Tick

LEAST_REQUESTS: Final = 20
_STABLE_FAILS: Final = 0.5
"""Share of stable's requests that fail from which on the fault is not the candidate's."""


def all_failing(ticks: Iterable[Tick], *, least: int = LEAST_REQUESTS) -> str | None:
    """Why the candidate is to be rolled back at once, in one sentence; None where it is not.

    ticks: the recent ones, some tens of seconds. Every one of at least *least* requests, or tries, of the
    candidate failed, and less than half of stable's; a stable without traffic does not excuse it.
    """
    seen = list(ticks)
    candidate, stable = [tick.candidate for tick in seen], [tick.stable for tick in seen]
    for word, counts in (("requests", _requests), ("tries", _tries)):
        (all_c, failed_c), (all_s, failed_s) = counts(candidate), counts(stable)
        if all_c >= least and failed_c >= all_c and failed_s < _STABLE_FAILS * max(all_s, 1):
            return f"all of the candidate's last {all_c} {word} failed, {failed_s} of {all_s} of stable's"
    return None


def _requests(arms: Iterable[ArmCounts]) -> tuple[int, int]:
    seen = list(arms)
    return sum(arm.requests for arm in seen), sum(arm.errors for arm in seen)


def _tries(arms: Iterable[ArmCounts]) -> tuple[int, int]:
    seen = list(arms)
    return sum(arm.tries or 0 for arm in seen), sum(arm.failed_tries or 0 for arm in seen)
