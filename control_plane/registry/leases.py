"""Queries about leases."""

from __future__ import annotations

from sqlalchemy.orm import Session

from control_plane.registry.tables import Lease

CONTROLLER = "controller"
"""Name of the lease whose holder leads."""


def is_held(session: Session, name: str, now: float) -> bool:
    """Whether some process holds the lease *name* at *now* (UTC seconds)."""
    lease = session.get(Lease, name)
    return lease is not None and lease.expires_at > now
