"""Which requests are kept: at most so many a second, and the same ones on every agent. Pure.

While fewer requests come than may be kept, all are. When more come, each agent halves the share it keeps as
often as it has to, and keeps those whose hashed id lies below that share. What an agent with much traffic
keeps is therefore a part of what one with less does: requests that were copied are kept on both sides.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final

HASH_BITS: Final = 64


class Sampler:
    """Decides for one agent."""

    def __init__(self, most_per_s: int) -> None:
        self._most_per_s = most_per_s
        self._second = -1
        self._offered = 0
        self._kept = 0
        self._halvings = 0

    def takes(self, request_id: str, now_s: float) -> bool:
        """Tell whether the request is kept; *now_s* never goes back. At most `most_per_s` are a second."""
        self._enter(math.floor(now_s))
        self._offered += 1
        if self._kept >= self._most_per_s or position(request_id) >> (HASH_BITS - self._halvings):
            return False
        self._kept += 1
        return True

    def _enter(self, second: int) -> None:
        """Begin *second*, unless it has: the last one's requests tell how often to halve."""
        if second == self._second:
            return
        offered = self._offered if second == self._second + 1 else 0
        self._halvings = halvings(offered, self._most_per_s)
        self._second, self._offered, self._kept = second, 0, 0


def halvings(offered: int, most: int) -> int:
    """Return how often the share kept of *offered* requests is halved so that about *most* are."""
    return max(0, math.ceil(math.log2(offered / most))) if offered else 0


def position(request_id: str) -> int:
    """Return where *request_id* lies among all ids: evenly spread over 0 to 2^HASH_BITS - 1."""
    return int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=HASH_BITS // 8).digest())
