"""Sets the scene of a rollout's gates: rows of the registry, and what its agents say of themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from control_plane.controller.assignments import memory_limit
from control_plane.domain import rollout_policy
from control_plane.domain.endpoint import AgentPhase
from control_plane.domain.golden import GoldenItem
from control_plane.domain.optimization import METHOD, REPORT, Budget
from control_plane.errors import NotFoundError
from control_plane.gates.asking import described
from control_plane.gates.infer_codec import Row
from control_plane.gates.scene import AgentAt, Golden, Scene, Side
from control_plane.registry import endpoints, golden_sets, rollouts
from control_plane.registry import session as sessions
from control_plane.registry.tables import Agent, Endpoint, Examples, Rollout, Version
from control_plane.services.context import Context

_SHOWN_DIGEST: Final = 15


def scene(ctx: Context, rollout_id: str) -> Scene:
    """The scene as it is now. Raises NotFoundError when the rollout or its endpoint is gone."""
    with sessions.read(ctx.engine) as session:
        row, endpoint = _rows(session, rollout_id)
        policy = rollout_policy.parse(endpoint.rollout_policy)
        golden, problem = _golden(session, row, policy.golden_set)
        read = Scene(
            endpoint=endpoint.name,
            replicas=endpoint.replicas,
            stable=_side(session, endpoint, row.stable),
            candidate=_side(session, endpoint, row.candidate),
            golden=golden,
            golden_problem=problem,
            golden_margin=policy.golden_margin,
            examples=_examples(session, row, golden),
            memory_limit=memory_limit(ctx.settings, endpoints.wanted_spec(endpoint)),
            cached=endpoints.options(endpoint).cache.max_bytes > 0,
            optimisation=_optimisation(row),
            budget=_budget(row),
        )
    return _with_signatures(read)


def refreshed(ctx: Context, rollout_id: str, before: Scene) -> Scene:
    """*before* with the agents that are ready now; raises as `scene` does."""
    with sessions.read(ctx.engine) as session:
        row, endpoint = _rows(session, rollout_id)
        stable, candidate = (_side(session, endpoint, each) for each in (row.stable, row.candidate))
    return _with_signatures(replace(before, stable=stable, candidate=candidate))


def _rows(session: Session, rollout_id: str) -> tuple[Rollout, Endpoint]:
    row = rollouts.find(session, rollout_id)
    endpoint = endpoints.find(session, row.endpoint) if row else None
    if row is None or endpoint is None:
        raise NotFoundError("the rollout, or its endpoint, is gone")
    return row, endpoint


def _with_signatures(read: Scene) -> Scene:
    """Have the agents tell what they take and give: that depends on handler and model, not on rows alone."""
    stable, candidate = (
        replace(side, signature=described(side.agents, read.endpoint))
        for side in (read.stable, read.candidate)
    )
    return replace(read, stable=stable, candidate=candidate)


def _side(session: Session, endpoint: Endpoint, version: Version) -> Side:
    return Side(
        ref=version.ref,
        labels=tuple(version.labels),
        agents=_agents(session, endpoint, version),
        signature=None,
    )


def _agents(session: Session, endpoint: Endpoint, version: Version) -> tuple[AgentAt, ...]:
    query = (
        select(Agent)
        .where(
            Agent.endpoint_id == endpoint.id,
            Agent.version_id == version.id,
            Agent.phase == AgentPhase.READY,
            Agent.rest_address.is_not(None),
        )
        .order_by(Agent.created_at, Agent.id)
    )
    return tuple(AgentAt(row.id, row.rest_address or "", row.pid) for row in session.scalars(query))


def _golden(session: Session, row: Rollout, digest: str | None) -> tuple[Golden | None, str | None]:
    if digest is None:
        return _labelled_examples(session, row.stable), None
    kept = golden_sets.find(session, row.stable.model_id, digest)
    if kept is None:
        return None, f"the golden set {digest} that the endpoint's policy names is not stored"
    items = msgspec.convert(kept.items, tuple[GoldenItem, ...])
    return Golden(items=items, source=f"golden set {kept.name} ({digest[:_SHOWN_DIGEST]})", named=True), None


def _labelled_examples(session: Session, version: Version) -> Golden | None:
    labelled = tuple(
        GoldenItem(inputs=each["inputs"], label=each["label"])
        for each in _stored(session, version)
        if each.get("label") is not None
    )
    if not labelled:
        return None
    return Golden(items=labelled, source=f"the labelled examples of {version.ref}", named=False)


def _examples(session: Session, row: Rollout, golden: Golden | None) -> tuple[Row, ...]:
    """Inputs to try: stable's examples, else the candidate's, else the golden items'."""
    for version in (row.stable, row.candidate):
        if stored := _stored(session, version):
            return tuple(each["inputs"] for each in stored)
    return tuple(item.inputs for item in golden.items) if golden else ()


def _stored(session: Session, version: Version) -> list[dict[str, Any]]:
    kept = session.get(Examples, version.id)
    return kept.items if kept else []


def _optimisation(row: Rollout) -> str | None:
    method = row.candidate.lineage.get(METHOD)
    return str(method) if method and row.candidate.parent_id == row.stable_version_id else None


def _budget(row: Rollout) -> Budget | None:
    """The budget in the candidate's own record, where it was made from stable by the lab."""
    recorded = row.candidate.lineage.get(REPORT)
    return msgspec.convert(recorded["budget"], Budget) if recorded and _optimisation(row) else None
