"""What the deploy form holds."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.domain.options import Patch


@dataclass(frozen=True, slots=True)
class Choice:
    """Serving settings as chosen; *memory_bytes* 0 is the machine's default, *handler* None the version's."""

    replicas: int
    threads: int
    device: str
    handler: str | None
    memory_bytes: int
    options: Patch
    waiver: str | None = None
    """Why a variant that the optimisation lab rejected is deployed all the same."""
