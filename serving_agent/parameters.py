"""A request's own parameters and its `timeout`, the same over REST and gRPC. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from serving_agent.errors import InvalidRequestError
from serving_agent.messages import Parameters

PROTOCOL_NAMES: Final = frozenset({"binary_data_output", "priority", "timeout"})
PROTOCOL_PREFIXES: Final = ("sequence_", "triton_")
"""Names of parameters that tell the server how to answer, not the model what to compute."""
US_PER_S: Final = 1_000_000


def own(parameters: Mapping[str, Any]) -> Parameters:
    """Return the parameters that are not the protocol's own, sorted by name.

    Raises InvalidRequestError where a value is no boolean, number or string.
    """
    kept = []
    for name in sorted(parameters):
        if name in PROTOCOL_NAMES or name.startswith(PROTOCOL_PREFIXES):
            continue
        if not isinstance(parameters[name], bool | int | float | str):
            raise InvalidRequestError(f"the parameter {name!r} must be a boolean, a number or a string")
        kept.append((name, parameters[name]))
    return tuple(kept)


def timeout_s(parameters: Mapping[str, Any]) -> float | None:
    """Return Triton's `timeout`, microseconds on the wire, in seconds; None where it is 0 or not given.

    Raises InvalidRequestError unless it is a whole number that is not negative.
    """
    value = parameters.get("timeout", 0)
    if type(value) is not int or value < 0:
        raise InvalidRequestError("the parameter 'timeout' must be a whole number of microseconds, 0 or more")
    return value / US_PER_S if value else None
