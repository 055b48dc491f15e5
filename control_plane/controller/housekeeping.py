"""Now and then: forget what nobody asks for any more. Runs beside the ticks, never inside one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Engine, delete, func, select

from control_plane.domain.endpoint import LIVE_PHASES
from control_plane.platforms.base import Platform
from control_plane.registry import session
from control_plane.registry.tables import Agent

logger = logging.getLogger(__name__)

AGENTS_KEPT: Final = 200
"""Ended agents that are kept per endpoint."""


def forget_old_agents(engine: Engine, platform: Platform, kept: int = AGENTS_KEPT) -> tuple[str, ...]:
    """Remove the oldest ended agents of each endpoint, with their logs; return their ids."""
    with session.write(engine) as db:
        rank = func.row_number().over(
            partition_by=Agent.endpoint_id, order_by=(Agent.created_at.desc(), Agent.id)
        )
        ranked = select(Agent.id, rank.label("rank")).where(Agent.phase.not_in(LIVE_PHASES)).subquery()
        old: Sequence[str] = db.scalars(select(ranked.c.id).where(ranked.c.rank > kept)).all()
        db.execute(delete(Agent).where(Agent.id.in_(old)))
    for agent_id in old:
        platform.forget(agent_id)
    if old:
        logger.info("%d old agents forgotten", len(old))
    return tuple(old)
