"""Queries about endpoints and agents."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, aliased, joinedload, lazyload
from sqlalchemy.orm.strategy_options import _AbstractLoad

from control_plane.domain.endpoint import LIVE_PHASES, AgentPhase, EndpointGoal, ServingSpec
from control_plane.registry.tables import Agent, Endpoint, Version

SHOWN_FAILURES = 10
"""Failed agents per endpoint that are read to judge its health."""


def wanted_spec(row: Endpoint) -> ServingSpec:
    """How the endpoint is to be served."""
    return ServingSpec(
        version_id=row.version_id,
        version_ref=row.version.ref,
        handler=row.handler,
        device=row.device,
        threads=row.threads,
        memory_bytes=row.memory_bytes,
        restart=row.restart,
    )


def _name_only() -> tuple[_AbstractLoad, ...]:
    """Of a version, nothing but what its name needs."""
    return (lazyload(Version.tags), lazyload(Version.artifact), joinedload(Version.model))


_WITH_VERSIONS = (
    joinedload(Endpoint.version).options(*_name_only()),
    joinedload(Endpoint.serving_version).options(*_name_only()),
)
_AGENT_NAMES = (
    joinedload(Agent.version).options(*_name_only()),
    joinedload(Agent.endpoint).options(lazyload("*")),
)


def find(session: Session, name: str) -> Endpoint | None:
    """The endpoint called *name*, with the names of its versions."""
    return session.scalar(select(Endpoint).where(Endpoint.name == name).options(*_WITH_VERSIONS))


def locked(session: Session, name: str) -> Endpoint | None:
    """The endpoint, locked until the transaction ends."""
    query = select(Endpoint).where(Endpoint.name == name).options(*_WITH_VERSIONS)
    return session.scalar(query.with_for_update(of=Endpoint))


def every(session: Session) -> Sequence[Endpoint]:
    """All endpoints by name, with the names of their versions."""
    return session.scalars(select(Endpoint).options(*_WITH_VERSIONS).order_by(Endpoint.name)).all()


def shown_agents(session: Session, endpoint_ids: Collection[str]) -> Sequence[Agent]:
    """Per endpoint all live agents and its latest SHOWN_FAILURES failed ones, newest first. One query."""
    rank = func.row_number().over(
        partition_by=(Agent.endpoint_id, Agent.phase), order_by=(Agent.created_at.desc(), Agent.id)
    )
    shown = (*LIVE_PHASES, AgentPhase.FAILED)
    ranked = (
        select(Agent.id, Agent.phase, rank.label("rank"))
        .where(Agent.endpoint_id.in_(endpoint_ids), Agent.phase.in_(shown))
        .subquery()
    )
    query = (
        select(Agent)
        .join(ranked, ranked.c.id == Agent.id)
        .where(or_(ranked.c.phase != AgentPhase.FAILED, ranked.c.rank <= SHOWN_FAILURES))
        .order_by(Agent.created_at.desc(), Agent.id)
        .options(*_AGENT_NAMES)
    )
    return session.scalars(query).all()


def agents(session: Session, *, endpoint: str | None, limit: int) -> Sequence[Agent]:
    """Agents in any phase, newest first."""
    query = select(Agent).options(*_AGENT_NAMES).order_by(Agent.created_at.desc(), Agent.id).limit(limit)
    if endpoint is not None:
        named = aliased(Endpoint)
        query = query.join(named, named.id == Agent.endpoint_id).where(named.name == endpoint)
    return session.scalars(query).all()


def live_agent_of(session: Session, version_id: str) -> Agent | None:
    """Some agent of the version that still runs."""
    query = select(Agent).where(Agent.version_id == version_id, Agent.phase.in_(LIVE_PHASES)).limit(1)
    return session.scalar(query.options(*_AGENT_NAMES))


def count(session: Session) -> int:
    """How many endpoints there are that are not being deleted."""
    query = select(func.count()).select_from(Endpoint).where(Endpoint.goal != EndpointGoal.DELETED)
    return session.scalar(query) or 0
