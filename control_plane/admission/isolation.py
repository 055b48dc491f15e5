"""Giving up, before hostile files are read, what that does not need: memory, time, files, network, signals.

Three things that any Linux process may do to itself, without root and without other programs: resource limits
(setrlimit(2)), Landlock (`control_plane.admission.landlock`) and seccomp (`control_plane.admission.seccomp`).
What the kernel lacks is left out and told, never an error. Nothing of it can be taken back.
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from control_plane.admission import landlock, seccomp

PR_SET_DUMPABLE: Final = 4
PR_SET_NO_NEW_PRIVS: Final = 38
OPEN_FILES: Final = 256

Level = Literal["S0", "S0 partly", "limits only"]
"""S0: reads and writes only what it was given, no network, no other programs, bounded memory and time."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What a process was confined by."""

    limits: tuple[str, ...]
    """Names of the resource limits that hold."""
    landlock: int
    """Version of Landlock that was applied; 0 where the kernel has none."""
    seccomp: bool

    @property
    def level(self) -> Level:
        """How far it came, in a word."""
        if self.landlock >= landlock.WHOLE and self.seccomp:
            return "S0"
        return "S0 partly" if self.landlock or self.seccomp else "limits only"


def confine(
    *,
    readable: Sequence[Path],
    writable: Sequence[Path],
    memory_bytes: int,
    cpu_s: int,
    file_bytes: int,
    open_files: int = OPEN_FILES,
    threads: bool = False,
) -> Isolation:
    """Confine this process for good, and all that it starts. Call it while it has one thread.

    readable, writable: existing files or folders; everything else is out of reach.
    memory_bytes: private memory. cpu_s: processor time. file_bytes: size of one written file.
    open_files: how many at once. threads: whether it may start them; it can start no process in any case.
    """
    limits = _limit(memory_bytes=memory_bytes, cpu_s=cpu_s, file_bytes=file_bytes, open_files=open_files)
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "prctl"):
        return Isolation(limits, 0, seccomp=False)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return Isolation(limits, 0, seccomp=False)
    version = landlock.restrict(libc, readable=readable, writable=writable)
    filtered = seccomp.restrict(libc, threads=threads)
    return Isolation(limits, version, filtered)


def _limit(*, memory_bytes: int, cpu_s: int, file_bytes: int, open_files: int) -> tuple[str, ...]:
    wanted = {
        "core": (resource.RLIMIT_CORE, 0),
        "data": (resource.RLIMIT_DATA, memory_bytes),
        "cpu": (resource.RLIMIT_CPU, cpu_s),
        "fsize": (resource.RLIMIT_FSIZE, file_bytes),
        "nofile": (resource.RLIMIT_NOFILE, open_files),
    }
    return tuple(name for name, (kind, value) in wanted.items() if _lower(kind, value))


def _lower(kind: int, value: int) -> bool:
    _, hard = resource.getrlimit(kind)
    bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
    grace = 1 if kind == resource.RLIMIT_CPU and bound != hard else 0  # SIGXCPU tells why, SIGKILL does not
    try:
        resource.setrlimit(kind, (bound, bound + grace))
    except (OSError, ValueError):
        return False
    return True
