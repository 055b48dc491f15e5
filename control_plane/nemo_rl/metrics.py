"""The numbers of `training_info.json` over the steps: series, tracked metric, best step. Pure.

Rule for the best step: NeMo RL's nemo_rl/utils/checkpoint.py (metric, higher_is_better, ties to the later).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

SENTINEL: Final = -99999999.0
"""What NeMo RL stores for a validation result that was never computed."""


def values(info: Mapping[str, Any]) -> dict[str, float | None]:
    """Return every numeric entry of *info*; None where it is NaN, infinite or the sentinel."""
    return {
        str(key): _value(float(value))
        for key, value in info.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e308
    } | {
        str(key): None for key, value in info.items() if isinstance(value, float) and not math.isfinite(value)
    }


def _value(number: float) -> float | None:
    return number if math.isfinite(number) and number != SENTINEL else None


def series(steps: Sequence[Mapping[str, float | None]]) -> dict[str, tuple[float | None, ...]]:
    """Return each metric's values over *steps*, in their order; None where a step has none.

    A metric that no step has a value for is left out.
    """
    names = sorted({name for step in steps for name in step})
    found = {name: tuple(step.get(name) for step in steps) for name in names}
    return {name: held for name, held in found.items() if any(value is not None for value in held)}


def tracked(metric_name: str | None, names: Iterable[str]) -> str | None:
    """Return the metric that decides which steps are kept, as it is called in training_info.json.

    *metric_name* is `checkpointing.metric_name`: `val:accuracy`, `train:loss`; `val_reward` up to v0.3.
    """
    known = set(names)
    if not metric_name:
        return None
    bare = metric_name.partition(":")[2] or metric_name
    guesses = (metric_name, f"val:{bare}", f"train:{bare}", f"val_{bare}", bare)
    return next((guess for guess in guesses if guess in known), None)


def best(found: Sequence[float | None], *, higher_is_better: bool) -> int | None:
    """Return the index of the best value, the later one of equals; None where there is no value."""
    known = [
        (value if higher_is_better else -value, index)
        for index, value in enumerate(found)
        if value is not None
    ]
    return max(known)[1] if known else None
