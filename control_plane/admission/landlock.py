"""Landlock: a process gives up all files, ports and signals but those it names.

https://docs.kernel.org/userspace-api/landlock.html. Versions of the interface, as
`landlock_create_ruleset(VERSION)` tells them: 1 files, 2 links between folders, 3 truncation, 4 TCP ports,
5 ioctl, 6 signals and abstract sockets.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

CREATE_RULESET: Final = 444
ADD_RULE: Final = 445
RESTRICT_SELF: Final = 446
"""System calls; the same numbers on all machines."""
ASK_VERSION: Final = 1
PATH_BENEATH: Final = 1
WHOLE: Final = 3
"""From this version on no written file escapes the rules."""

READ: Final = 1 << 2 | 1 << 3
"""READ_FILE, READ_DIR."""
WRITE: Final = READ | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8
"""WRITE_FILE, REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG."""
REFER: Final = 1 << 13
TRUNCATE: Final = 1 << 14
FILES_ALONE: Final = 1 << 0 | 1 << 1 | 1 << 2 | TRUNCATE | 1 << 15
"""Rights that a rule for a single file may hold."""
KNOWN_FILES: Final = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Version → all rights on files that it knows."""
NETWORK: Final = 0b11
"""BIND_TCP, CONNECT_TCP."""
SCOPES: Final = 0b11
"""Abstract Unix sockets and signals of processes outside."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _PathRule(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("folder", ctypes.c_int32))


def restrict(libc: ctypes.CDLL, *, readable: Sequence[Path], writable: Sequence[Path]) -> int:
    """Give up all files but *readable* and *writable*; return the version applied, 0 where there is none.

    Needs NO_NEW_PRIVS. Raises OSError when a path cannot be opened or the kernel refuses its own interface.
    """
    version = int(libc.syscall(CREATE_RULESET, None, 0, ASK_VERSION))
    if version < 1:
        return 0
    known = KNOWN_FILES[max(each for each in KNOWN_FILES if each <= version)]
    ruleset = _create(libc, version, known)
    try:
        for path in readable:
            _allow(libc, ruleset, path, READ)
        for path in writable:
            _allow(libc, ruleset, path, (WRITE | REFER | TRUNCATE) & known)
        _checked(libc.syscall(RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return version


def _create(libc: ctypes.CDLL, version: int, known: int) -> int:
    wanted = _Ruleset(known, NETWORK if version >= 4 else 0, SCOPES if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    return _checked(libc.syscall(CREATE_RULESET, ctypes.byref(wanted), size, 0))


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        held = rights if path.is_dir() else rights & FILES_ALONE
        rule = _PathRule(held, place)
        _checked(libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, ctypes.byref(rule), 0))
    finally:
        os.close(place)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
