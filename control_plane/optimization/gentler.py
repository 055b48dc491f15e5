"""The next gentler parameters of a method: more of the fragile layers stay in full precision. Pure."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from control_plane.optimization.base import Method

FIELD: Final = "keep_most_fragile"
"""Parameter of methods that can keep layers: how many of the most fragile ones."""
FIRST: Final = 2
FACTOR: Final = 4
"""2, 8, 32 layers: few steps from a network's ends to most of it."""


def is_gentler(given: dict[str, Any]) -> bool:
    """Whether fragile layers are kept already: worth it only where keeping none spoils the answers."""
    return bool(given.get(FIELD))


def params(method: Method, given: dict[str, Any]) -> dict[str, Any] | None:
    """*given* with more layers kept; None where the method keeps none, or no more than it does."""
    if FIELD not in method.params.model_fields:
        return None
    wanted = {**given, FIELD: max(FIRST, FACTOR * int(given.get(FIELD, 0)))}
    try:
        return method.params.model_validate(wanted).model_dump(mode="json")
    except ValidationError:
        return None
