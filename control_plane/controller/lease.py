"""One controller at a time: a lease row with a fencing token that only grows.

The token is checked inside every write transaction, so a leader that was paused for longer than its lease and
wakes up can write nothing any more. Clocks of the machines that share a registry must agree within seconds.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from control_plane.registry import leases, session
from control_plane.registry.tables import Lease as LeaseRow
from control_plane.registry.tables import new_id

RENEW_SHARE: Final = 0.25
"""The lease is renewed once this share of it has passed."""


class LeaseLostError(Exception):
    """Another controller leads; nothing was written."""


def holder_name() -> str:
    """A name for this process that no other one ever had: host, pid and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{new_id()[:8]}"


class Lease:
    """This process's claim to lead. Not thread-safe: owned by the loop."""

    def __init__(self, engine: Engine, *, lease_s: float, clock: Callable[[], float], holder: str) -> None:
        self.engine = engine
        self._lease_s = lease_s
        self._clock = clock
        self.holder = holder
        self.token: int | None = None
        """The fencing token while leading, else None."""
        self._renewed_at = 0.0

    def hold(self) -> bool:
        """Take the lease, or renew it when that is due; return whether this process leads now."""
        now = self._clock()
        fresh = now - self._renewed_at < self._lease_s * RENEW_SHARE
        if self.token is not None and now >= self._renewed_at and fresh:
            return True
        with session.write(self.engine) as db:
            self.token = self._claim(db, now)
        self._renewed_at = now
        return self.token is not None

    def check(self) -> None:
        """Raise LeaseLostError unless this process leads now: called before effects outside the registry."""
        if not self.hold():
            raise _lost()
        with session.read(self.engine) as db:
            self._fence(db)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One registry transaction that fails with LeaseLostError when another controller leads."""
        with session.write(self.engine) as db:
            self._fence(db)
            yield db

    def release(self) -> None:
        """Let a successor lead at once. Does nothing when this process does not lead."""
        with session.write(self.engine) as db:
            row = db.get(LeaseRow, leases.CONTROLLER, with_for_update=True)
            if row is not None and row.holder == self.holder and row.token == self.token:
                row.expires_at = 0.0
        self.token = None

    def _claim(self, db: Session, now: float) -> int | None:
        row = db.get(LeaseRow, leases.CONTROLLER, with_for_update=True)
        if row is None:
            row = LeaseRow(
                name=leases.CONTROLLER, holder=self.holder, token=1, expires_at=now + self._lease_s
            )
            db.add(row)
            return row.token
        if row.holder != self.holder or row.token != self.token:
            if row.expires_at > now:
                return None
            row.holder, row.token = self.holder, row.token + 1
        row.expires_at = now + self._lease_s
        return row.token

    def _fence(self, db: Session) -> None:
        row = db.get(LeaseRow, leases.CONTROLLER, with_for_update=True)
        if row is None or self.token is None or row.holder != self.holder or row.token != self.token:
            self.token = None
            raise _lost()


def _lost() -> LeaseLostError:
    return LeaseLostError("another controller leads now")
