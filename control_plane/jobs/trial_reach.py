"""What a trial may read besides the artefact: the libraries of Python and of the system, and nothing of ours.

Landlock guards no look at a file's name or size, only reading and writing it.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path
from typing import Final

import control_plane
import serving_agent

SYSTEM: Final = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime",
    "/dev/urandom", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system",
)  # fmt: skip
"""Shared libraries that are opened late, and what tells torch which processor this is."""
DEVICES: Final = ("/dev/null",)


def leave_out(folder: Path) -> None:
    """Import nothing from *folder* any more, so that it need not be readable.

    Python puts the folder in which we were started on its path; an operator's own networks may lie there.
    """
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != folder.resolve()]


def libraries() -> list[Path]:
    """Return the files and folders that hold code, of those that are there."""
    ours = (path for package in (control_plane, serving_agent) for path in package.__path__)
    prefixes = (str(Path(prefix) / "lib") for prefix in (sys.prefix, sys.base_prefix))
    loader = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)  # noqa: TID251  the loader's own
    named = (*sys.path, sysconfig.get_path("stdlib"), *ours, *prefixes, *loader, *SYSTEM)
    return _present(tuple(dict.fromkeys(named)))


def devices() -> list[Path]:
    """Return what may be written although it is none of the trial's files."""
    return _present(DEVICES)


def _present(names: tuple[str, ...]) -> list[Path]:
    return [Path(name) for name in names if name and os.access(name, os.R_OK)]
