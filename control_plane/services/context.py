"""What every service call is given: settings and the open registry."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from control_plane.config import Settings
from control_plane.registry import session


@dataclass(frozen=True, slots=True)
class Context:
    """Settings and the registry's engine, shared by all calls of a process (thread-safe)."""

    settings: Settings
    engine: Engine


def open_context(settings: Settings) -> Context:
    """Open the registry that *settings* name."""
    return Context(settings, session.open_engine(settings.database))
