"""The registry as the controller reads it: endpoints and agents as frozen values."""

from __future__ import annotations

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from control_plane.controller import rollout_rows
from control_plane.controller.snapshot import AgentSeen, EndpointSeen, ProcessSeen, RolloutSeen
from control_plane.domain import rollout_policy
from control_plane.domain.endpoint import LIVE_PHASES, AgentPhase, EndpointGoal
from control_plane.registry import endpoints as endpoint_queries
from control_plane.registry import freeze_windows, rollouts
from control_plane.registry.tables import Agent, Endpoint

ENDED_SEEN = 24
"""Ended agents per endpoint and phase that are read: enough to count failures up to the longest pause."""


def endpoints(db: Session, now: float) -> tuple[EndpointSeen, ...]:
    """All endpoints by name, each with its rollout."""
    standing = {row.endpoint: row for row in rollouts.standing(db)}
    windows = freeze_windows.near(db, now) if standing else ()
    return tuple(
        _endpoint(
            row,
            rollout_rows.seen(db, row, standing[row.name], windows, now) if row.name in standing else None,
        )
        for row in endpoint_queries.every(db)
    )


def agents(db: Session) -> tuple[AgentSeen, ...]:
    """All live agents and each endpoint's latest ended ones, as their rows have them."""
    rank = func.row_number().over(
        partition_by=(Agent.endpoint_id, Agent.phase), order_by=(Agent.created_at.desc(), Agent.id)
    )
    ranked = select(Agent.id, rank.label("rank")).where(~_live()).subquery()
    recent = select(ranked.c.id).where(ranked.c.rank <= ENDED_SEEN)
    query = select(Agent).where(or_(_live(), Agent.id.in_(recent)))
    return tuple(_agent(row) for row in db.scalars(query))


def _live() -> ColumnElement[bool]:
    return Agent.phase.in_(LIVE_PHASES)


def _endpoint(row: Endpoint, rollout: RolloutSeen | None) -> EndpointSeen:
    return EndpointSeen(
        id=row.id,
        name=row.name,
        goal=EndpointGoal(row.goal),
        replicas=row.replicas,
        spec=endpoint_queries.wanted_spec(row),
        serving=row.serving_version.ref if row.serving_version else None,
        policy=rollout_policy.parse(row.rollout_policy),
        rollout=rollout,
    )


def _agent(row: Agent) -> AgentSeen:
    started = row.pid_started_at
    return AgentSeen(
        id=row.id,
        endpoint_id=row.endpoint_id,
        spec=endpoint_queries.spec_of(row),
        phase=AgentPhase(row.phase),
        recorded=ProcessSeen(row.pid, started) if row.pid is not None and started is not None else None,
        rest_address=row.rest_address or "",
        grpc_address=row.grpc_address or "",
        timings_s=dict(row.timings_s),
        created_at=row.created_at,
        ready_at=row.ready_at,
        ended_at=row.ended_at,
        check=endpoint_queries.health_check(row),
        effect=endpoint_queries.effect(row),
        reason=row.reason,
    )
