"""Models that cannot be looked into: why, and what to do instead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from serving_agent.inspection.captures import base
from serving_agent.inspection.points import Points
from serving_agent.model_server import ModelServer

ADVICE: Final = "Debug the version it was made of, and compare this one's answers with it."
COMPILED: Final = (
    "The compiler has made one piece of machine code of the network, in which layers are not apart any more. "
    + ADVICE
)
OPTION: Final = (
    "The endpoint's option `compile` makes one piece of machine code of the network, in which layers are not "
    "apart any more. Debug the version with that option off."
)
UNKNOWN: Final = "The handler keeps no module of torch and no graph that could be watched. " + ADVICE


class Nothing:
    """Watches nothing; the steps of the request are recorded all the same."""

    name = "nothing"
    level: base.Level = "none"

    def __init__(self, why: str = "") -> None:
        """*why*: instead of what the kind of model tells."""
        self._said = why

    def applies_to(self, server: ModelServer) -> bool:
        """Anything."""
        del server
        return True

    @contextmanager
    def watching(self, server: ModelServer, points: Points) -> Iterator[None]:
        """Say why there are no points."""
        points.note(self._said or self._why(server))
        yield

    def unwatched(self, server: ModelServer) -> None:
        """Agents run it so."""
        del server

    def _why(self, server: ModelServer) -> str:
        if server.context.format.is_native:
            return COMPILED
        return OPTION if server.context.execution.compile else UNKNOWN


CAPTURE: Final = Nothing()
