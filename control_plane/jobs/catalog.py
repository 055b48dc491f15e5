"""The kinds of jobs: one dotted module name each, imported when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Final, cast

from control_plane.errors import InvalidInputError
from control_plane.jobs.base import JobKind

MODULES: Final = (
    "control_plane.jobs.kinds.check",
    "control_plane.jobs.kinds.compare",
    "control_plane.jobs.kinds.example",
    "control_plane.jobs.kinds.rejudge",
    "control_plane.jobs.kinds.verify",
    "control_plane.jobs.kinds.fetch",
    "control_plane.jobs.kinds.import_nemo_rl",
    "control_plane.jobs.kinds.gates",
    "control_plane.jobs.kinds.optimize",
    "control_plane.jobs.kinds.autotune",
    "control_plane.jobs.kinds.register_variant",
    "control_plane.jobs.kinds.debug",
    "control_plane.jobs.kinds.profile",
    "control_plane.jobs.kinds.profile_live",
)


def kinds() -> tuple[JobKind, ...]:
    """Return every kind, in the catalogue's order; imports no torch."""
    return tuple(cast(JobKind, import_module(module).KIND) for module in MODULES)


def names() -> tuple[str, ...]:
    """Return the kinds' names."""
    return tuple(kind.name for kind in kinds())


def get(name: str) -> JobKind:
    """Return the kind called *name*. Raises InvalidInputError listing the known ones."""
    for kind in kinds():
        if kind.name == name:
            return kind
    raise InvalidInputError(f"There is no job kind {name[:80]!r}; known kinds are {', '.join(names())}")
