"""The form that asks for the network of bare weights: what was typed → what services take. Pure."""

from __future__ import annotations

import json
from typing import Any, Final, Literal

from control_plane.errors import InvalidInputError

Way = Literal["class", "config"]
WAYS: Final[dict[Way, str]] = {"class": "A listed class", "config": "A Hugging Face config.json"}
NONE_LISTED: Final = (
    "No class is listed on this installation",
    "An operator lists networks that may be used in SIGNALBOX_ARCHITECTURES, as a JSON list of "
    '"module:Class", and starts Signalbox again. Weights of a transformers model need its config.json only.',
)
"""What is said, and what to do, where there is no class to choose."""


def network(way: Way, builder: str, arguments: str, config: str) -> dict[str, Any]:
    """Return the answer as typed: a class with arguments, or a configuration. Raises InvalidInputError."""
    if way == "config":
        return {"config": _object(config, "config.json")}
    return {"class": builder, "arguments": _object(arguments, "the arguments") if arguments.strip() else {}}


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(
            f"What is given as {what} is not JSON: {error}", next_step='Write an object: {"hidden": 128}.'
        ) from None
    if not isinstance(value, dict):
        raise InvalidInputError(
            f"What is given as {what} is no JSON object", next_step='Write an object: {"hidden": 128}.'
        )
    return value
