"""The extension point for gates: one module each, listed in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from control_plane.gates.asking import Asking
from control_plane.gates.scene import Scene

E = TypeVar("E")


class Outcome(StrEnum):
    """What came of a gate."""

    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    WAIVED = "waived"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a gate says of the candidate: one sentence for people, and the figures behind it as plain JSON."""

    outcome: Outcome
    sentence: str
    figures: Mapping[str, Any] = field(default_factory=dict)


class Gate(Protocol[E]):
    """One gate. Each module of the catalogue holds one as `GATE`."""

    @property
    def name(self) -> str:
        """Key in the catalogue, and the reason code of a rollout that fails here."""

    @property
    def title(self) -> str:
        """Name for people."""

    @property
    def always(self) -> bool:
        """Whether it runs also where the gates are waived."""

    @property
    def decisive(self) -> bool:
        """Whether the gates after it mean nothing once it has failed."""

    def inapplicable(self, scene: Scene) -> str | None:
        """Why it says nothing about this rollout, in one sentence; None: it applies."""

    def gather(self, scene: Scene, asking: Asking, /) -> E:
        """Ask and measure; decides nothing.

        Raises UnavailableError where stable does not answer, and whatever the job's progress raises.
        """

    def decide(self, evidence: E) -> Finding:
        """What follows from *evidence*. Pure."""
