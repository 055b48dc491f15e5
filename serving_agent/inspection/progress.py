"""How far an inspection is, said not too often."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from serving_agent.contract.inspection import Progressed

INTERVAL_S: Final = 0.2
OPENING: Final = 0.05
PLAIN: Final = 0.3
RECORDED: Final = 0.5
WRITING: Final = 0.97


class Progress:
    """Says stages at once, and what lies within one at intervals."""

    def __init__(self, say: Callable[[Progressed], None]) -> None:
        self._say = say
        self._said_at = 0.0

    def at(self, stage: str, done: float) -> None:
        """Say that *stage* begins; *done*: share of the whole."""
        self._say(Progressed(stage=stage, done=done))
        self._said_at = time.monotonic()

    def recorded(self, points: int) -> None:
        """Say how many points there are, of a number that nobody knows: half of the way after a hundred."""
        now = time.monotonic()
        if now - self._said_at >= INTERVAL_S:
            share = points / (points + 100)
            self.at(f"record the layers: {points}", RECORDED + (WRITING - RECORDED) * share)
