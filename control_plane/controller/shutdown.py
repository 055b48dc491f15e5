"""The orderly end of all agents of this installation, when everything is stopped on purpose."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy import select

from control_plane.controller.lease import Lease
from control_plane.domain.endpoint import LIVE_PHASES, AgentPhase
from control_plane.platforms.base import Platform
from control_plane.registry.tables import Agent

logger = logging.getLogger(__name__)


def end_agents(platform: Platform, wait: Callable[[], bool]) -> None:
    """Ask all agents to end and kill those that do not.

    wait: blocks until an agent has ended or some time has passed; returns False when patience is over.
    """
    for agent_id in platform.running():
        platform.stop(agent_id)
    while platform.running() and wait():
        pass
    for agent_id in platform.running():
        logger.warning("agent %s did not end in time: ended by force", agent_id)
        platform.kill(agent_id)


def record_ended(lease: Lease, now: float) -> int:
    """Note that every agent has ended as told, so that the next start does not take them for crashed.

    Returns how many rows that were. Raises LeaseLostError when another controller leads: it looks itself.
    """
    lease.check()
    with lease.write() as db:
        rows = db.scalars(select(Agent).where(Agent.phase.in_(LIVE_PHASES))).all()
        for row in rows:
            row.phase, row.ended_at = AgentPhase.STOPPED, now
    lease.release()
    return len(rows)
