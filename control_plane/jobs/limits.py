"""Resource limits of a job's process."""

from __future__ import annotations

import resource
from typing import Final

import psutil

MIN_BYTES: Final = 1024**3
"""No job is given less memory than this: torch alone takes some hundred MiB."""
SPARE: Final = 0.8
"""Share of the free memory that what is in nobody's way may use."""


def memory_bytes(share: float) -> int:
    """Return the private memory one process may use: *share* (0 to 1] of the machine's, in bytes."""
    return max(MIN_BYTES, int(psutil.virtual_memory().total * share))


def spare_bytes(share: float) -> int:
    """Return the same for a process that must leave others theirs: no more than SPARE of what is free now."""
    return min(memory_bytes(share), max(MIN_BYTES, int(psutil.virtual_memory().available * SPARE)))


def apply(*, memory: int, file_size: int) -> None:
    """Limit this process and all it starts: private memory and one file's size in bytes; no core dumps."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_DATA, memory)
    _lower(resource.RLIMIT_FSIZE, file_size)


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (bound, bound))
