"""What the two sides of a check say to each other: JSON, one line each."""

from __future__ import annotations

import msgspec

from control_plane.admission.base import Accepted, Refused


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What the check's process is told on its stdin."""

    folder: str
    """The upload's folder, or its one file."""
    scratch: str
    target: str | None
    """Folder that the weights are written to; None to judge alone."""
    verify: bool
    """Whether to compare checksums although nothing is written; writing compares them anyway."""
    libraries: tuple[str, ...]
    """Folders of our own code, which stay readable."""
    memory_bytes: int
    cpu_s: int
    file_bytes: int


class Reached(msgspec.Struct, frozen=True, kw_only=True, tag="reached"):
    """How far the check is."""

    stage: str
    done: float
    """In [0, 1]."""


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """What came of the check: one of `accepted`, `refused` and `fault`."""

    accepted: Accepted | None = None
    """Its tensors have no pieces: names, types and shapes alone."""
    refused: Refused | None = None
    fault: str | None = None
    """What failed on our side, such as a full disk."""
    sources: tuple[tuple[str, str], ...] = ()
    """The files kept as they came: (name in the artefact, where it lies)."""
    level: str = ""
    """How far the process was confined: a value of `isolation.Level`."""
    peak_bytes: int = 0
    """Most memory that the process held, resident."""


Said = Reached | Ended
