"""One supervisor a home: a file lock that the system gives back when its holder dies, and who holds it."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True, slots=True)
class Running:
    """The supervisor that runs already."""

    pid: int
    since: float
    """UTC seconds since the epoch."""
    web_url: str
    gateway_url: str


class UpLock:
    """Holds the lock inside a `with` block; `holder` says who has it when that is somebody else."""

    def __init__(self, path: Path, me: Running) -> None:
        self._path = path
        self._me = me
        self._handle = -1
        self.holder: Running | None = None
        """Who runs already; None when this process got the lock."""

    def __enter__(self) -> UpLock:
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.holder = _read(self._path) or Running(0, 0.0, self._me.web_url, self._me.gateway_url)
            return self
        os.truncate(self._handle, 0)
        os.pwrite(self._handle, json.dumps(asdict(self._me)).encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)


def _read(path: Path) -> Running | None:
    try:
        return Running(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
