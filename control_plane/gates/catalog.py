"""The gates in the order they run: one dotted module name each."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final, cast

from control_plane.gates.base import Gate

MODULES: Final = (
    "control_plane.gates.signature",
    "control_plane.gates.smoke",
    "control_plane.gates.memory",
    "control_plane.gates.warm_up",
    "control_plane.gates.golden_set",
    "control_plane.gates.equivalence",
)


def gates() -> tuple[Gate[Any], ...]:
    """Every gate, in the order they run."""
    return tuple(cast(Gate[Any], import_module(module).GATE) for module in MODULES)
