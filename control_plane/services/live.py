"""The live charts' data, assembled once for all viewers."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Final

import msgspec

from control_plane.domain.names import check_label
from control_plane.errors import InvalidInputError
from control_plane.services.context import Context
from control_plane.telemetry import LocalStore, live_bundle

FRESH_S: Final = 1.5
"""A bundle serves all viewers for this long, in seconds."""
MIN_RANGE_S: Final = 60
MAX_RANGE_S: Final = 7 * 24 * 3600
_MAX_KEPT: Final = 64


@dataclass(slots=True)
class _Kept:
    """One bundle and when it was made; its lock lets one thread make it while others wait."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    made_at: float = float("-inf")
    content: bytes = b""


_kept: dict[tuple[str, int, str | None], _Kept] = {}
_kept_lock = threading.Lock()


def bundle(ctx: Context, *, range_s: int, endpoint: str | None = None) -> bytes:
    """JSON of every live panel over the last *range_s* seconds, of one endpoint or all; at most 1.5 s old.

    Raises InvalidInputError for a range outside one minute to seven days.
    """
    if not MIN_RANGE_S <= range_s <= MAX_RANGE_S:
        raise InvalidInputError(f"range_s must be from {MIN_RANGE_S} to {MAX_RANGE_S}, not {range_s}")
    if endpoint is not None:
        check_label("endpoint", endpoint)
    kept = _slot((str(ctx.settings.metrics_path), range_s, endpoint))
    with kept.lock:
        if time.monotonic() - kept.made_at > FRESH_S:
            store = LocalStore(ctx.settings.metrics_path)
            kept.content = msgspec.json.encode(live_bundle(store, range_s, endpoint))
            kept.made_at = time.monotonic()
        return kept.content


def _slot(key: tuple[str, int, str | None]) -> _Kept:
    with _kept_lock:
        if key not in _kept:
            while len(_kept) >= _MAX_KEPT:
                del _kept[min(_kept, key=lambda each: _kept[each].made_at)]
            _kept[key] = _Kept()
        return _kept[key]
