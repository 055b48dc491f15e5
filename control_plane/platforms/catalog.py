"""The platforms there are: dotted module names, each with a `create(settings) -> Platform`."""

from __future__ import annotations

import importlib
from typing import Final, cast

from control_plane.config import Settings
from control_plane.errors import InvalidInputError
from control_plane.platforms.base import Platform

PLATFORMS: Final = ("control_plane.platforms.local",)


def names() -> tuple[str, ...]:
    """Names of all platforms."""
    return tuple(module.rpartition(".")[2] for module in PLATFORMS)


def create(name: str, settings: Settings) -> Platform:
    """The platform called *name*. Raises InvalidInputError that lists the known ones."""
    for module in PLATFORMS:
        if module.rpartition(".")[2] == name:
            return cast(Platform, importlib.import_module(module).create(settings))
    raise InvalidInputError(f"there is no platform {name!r}", next_step=f"Known: {', '.join(names())}.")
