"""When a failing agent is tried again. Pure.

The first failure is answered at once; after that the pause doubles: 1, 2, 4 … 60 seconds. An agent that
stayed ready for `STABLE_S` ends the series, for its like and for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.domain.endpoint import HealthCheck

STABLE_S: Final = 60.0
"""An agent that was ready for this long, in seconds, has proved that its version runs."""
LONGEST_PAUSE_S: Final = 60.0
CRASH_LOOP_FAILURES: Final = 3
"""From this many failures in a row on, the endpoint is said to be in a crash loop."""


@dataclass(frozen=True, slots=True)
class Life:
    """One agent's life as far as backoff cares: when it became ready, when and how it ended.

    Times are UTC seconds since the epoch.
    """

    ready_at: float | None
    ended_at: float | None
    failed: bool
    sound_until: float | None = None
    """Since when its own tests have failed, if they do: from then on it proves nothing."""


def sound_until(check: HealthCheck) -> float | None:
    """Since when an agent's tests have failed; None unless they fail again and again."""
    return check.failing_since if check.failing else None


def stable(life: Life, now: float) -> bool:
    """Whether it stayed ready for STABLE_S."""
    if life.ready_at is None:
        return False
    end = min(
        now if life.ended_at is None else life.ended_at,
        now if life.sound_until is None else life.sound_until,
    )
    return end - life.ready_at >= STABLE_S


def failures(lives: Sequence[Life], now: float) -> tuple[float, ...]:
    """When agents of one spec failed in a row since the last stable one, oldest first.

    lives: all agents that ran with that spec, in any order.
    """
    since = max(
        (life.ready_at + STABLE_S for life in lives if life.ready_at is not None and stable(life, now)),
        default=None,
    )
    times = (
        life.ended_at for life in lives if life.failed and life.ended_at is not None and not stable(life, now)
    )
    return tuple(sorted(time for time in times if since is None or time > since))


def pause_s(failure_count: int) -> float:
    """Seconds to wait after that many failures in a row: 0, 0, 1, 2, 4 … 60."""
    if failure_count < 2:
        return 0.0
    return min(LONGEST_PAUSE_S, 2.0 ** min(failure_count - 2, 10))


def next_attempt_at(lives: Sequence[Life], now: float) -> float:
    """When the next agent of that spec may start (epoch seconds); in the past when it may start now."""
    times = failures(lives, now)
    return times[-1] + pause_s(len(times)) if times else 0.0


def crash_loop(lives: Sequence[Life], now: float) -> bool:
    """Whether that spec fails again and again."""
    return len(failures(lives, now)) >= CRASH_LOOP_FAILURES
