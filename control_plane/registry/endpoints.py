"""Queries about endpoints and agents."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, aliased, joinedload, lazyload
from sqlalchemy.orm.strategy_options import _AbstractLoad

from control_plane.domain.endpoint import LIVE_PHASES, AgentPhase, EndpointGoal, HealthCheck, ServingSpec
from control_plane.registry.tables import Agent, Endpoint, Json, Version
from serving_agent.contract.options import ServingOptions
from serving_agent.contract.status import OptionsEffect

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
        options=options(row),
    )


def options(row: Endpoint) -> ServingOptions:
    """The endpoint's serving options."""
    return msgspec.convert(row.options, ServingOptions)


def spec_json(spec: ServingSpec) -> Json:
    """*spec* as an agent's row holds it."""
    stored: Json = msgspec.to_builtins(spec)
    return stored


def spec_of(row: Agent) -> ServingSpec:
    """What the agent was started with; rows of before an option was known have its default."""
    return msgspec.convert(row.spec, ServingSpec)


def health_check(row: Agent) -> HealthCheck:
    """What the agent's test inferences said last."""
    return msgspec.convert(row.health_check or {}, HealthCheck)


def effect(row: Agent) -> OptionsEffect | None:
    """What the agent's execution options change."""
    return msgspec.convert(row.effect, OptionsEffect) if row.effect else None


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


def named(session: Session, names: Collection[str]) -> Sequence[Endpoint]:
    """The endpoints with those names, in no order, with the names of their versions."""
    return session.scalars(select(Endpoint).where(Endpoint.name.in_(names)).options(*_WITH_VERSIONS)).all()


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
