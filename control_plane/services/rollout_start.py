"""Starting a rollout: every check that can be made before anything runs, and its rows."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

import msgspec
from sqlalchemy.orm import Session

from control_plane.analysis import evidence
from control_plane.domain import freeze, rollout_policy
from control_plane.domain.endpoint import EndpointGoal
from control_plane.domain.rollout import Plan, RolloutState
from control_plane.domain.rollout_policy import RolloutPolicy
from control_plane.errors import ConflictError
from control_plane.registry import freeze_windows, rollout_moves, rollouts
from control_plane.registry import session as sessions
from control_plane.registry.tables import Endpoint, RolloutEvidence, Version, new_id
from control_plane.registry.tables import Rollout as Row
from control_plane.services import goals, rollout_conflicts, versions, waivers
from control_plane.services.context import Context
from control_plane.services.rollout_plans import PlanWish, build
from serving_agent.contract.signature import Signature, TensorSpec


def begin(
    ctx: Context,
    endpoint: str,
    candidate_ref: str,
    wish: PlanWish,
    *,
    actor: str,
    supersede: bool = False,
    expected_revision: int | None = None,
    waiver: str | None = None,
) -> str:
    """Write a new rollout and return its id. Raises as `rollouts.start` does."""
    with sessions.write(ctx.engine) as session:
        row = goals.locked(session, endpoint, expected_revision)  # and before it the last rollout
        candidate = versions.find(session, candidate_ref, lock=True)  # before a rollout reads it unlocked
        old = rollout_conflicts.standing(session, endpoint)
        policy = rollout_policy.parse(row.rollout_policy)
        plan = build(wish, warm_s=policy.warm_s)
        now = time.time()
        if old is not None and not supersede:
            raise rollout_conflicts.refusal(old, f"A rollout of {candidate.ref}")
        _check_endpoint(row, replacing=old is not None)
        _check_candidate(ctx, session, row, candidate)
        waivers.check(session, candidate, waiver, wanted=f"a candidate for {endpoint}", actor=actor)
        _check_staging(session, policy, candidate)
        _check_freeze(session, endpoint, plan, now)
        if old is not None:
            rollout_conflicts.supersede(session, old, candidate=candidate.ref, actor=actor, at=now)
        closed = rollout_conflicts.close_window(
            session, endpoint, actor=actor, why=f"a rollout of {candidate.ref} begins", at=now
        )
        session.flush()
        started = _insert(ctx, session, row, candidate, plan, actor, now)
        message = _message(started, endpoint, row.version.ref, candidate.ref, actor, closed=closed)
        rollout_moves.created(session, started, actor=actor, message=message, at=now)
        return started.id


def signature_differences(stable: Signature, candidate: Signature) -> tuple[str, ...]:
    """What differs between two signatures, one sentence each: `input x: FP32[-1] became FP64[-1]`. Pure."""
    return (
        *_differences("input", stable.inputs, candidate.inputs),
        *_differences("output", stable.outputs, candidate.outputs),
    )


def _differences(kind: str, before: Iterable[TensorSpec], after: Iterable[TensorSpec]) -> tuple[str, ...]:
    old, new = ({spec.name: _typed(spec) for spec in specs} for specs in (before, after))
    return (
        *(f"{kind} {name} is gone" for name in old if name not in new),
        *(f"{kind} {name} is new" for name in new if name not in old),
        *(
            f"{kind} {name}: {old[name]} became {new[name]}"
            for name in old
            if name in new and old[name] != new[name]
        ),
    )


def _typed(spec: TensorSpec) -> str:
    return f"{spec.datatype}[{','.join(str(size) for size in spec.shape)}]"


def _check_endpoint(row: Endpoint, *, replacing: bool) -> None:
    if row.goal != EndpointGoal.RUNNING:
        what = "being deleted" if row.goal == EndpointGoal.DELETED else "stopped"
        raise ConflictError(
            f"{row.name} is {what}: there is nothing to compare a candidate with",
            next_step=f"Start it first: `signalbox start {row.name}`.",
        )
    if row.serving_version_id is None:
        raise ConflictError(
            f"{row.name} serves nothing yet: there is nothing to compare a candidate with",
            next_step="Wait until it is ready; see `signalbox status`.",
        )
    if row.serving_version_id != row.version_id and not replacing:
        raise ConflictError(
            f"{row.name} is still changing to {row.version.ref}", next_step="Wait until it is ready."
        )


def _check_candidate(ctx: Context, session: Session, row: Endpoint, candidate: Version) -> None:
    if candidate.id == row.version_id:
        raise ConflictError(f"{row.name} serves {candidate.ref} already", next_step="Name another version.")
    goals.check_deployable(ctx, candidate, replace(goals.goal_of(row), version_id=candidate.id))
    stable = session.get_one(Version, row.version_id)
    differences = signature_differences(
        msgspec.convert(stable.signature, Signature), msgspec.convert(candidate.signature, Signature)
    )
    if differences:
        raise ConflictError(
            f"clients of {row.name} would notice: {candidate.ref} has another signature than {stable.ref} "
            f"({'; '.join(differences[:5])})",
            next_step="Deploy it at an endpoint of its own, or export it with the signature of the old one.",
            differences=list(differences),
        )


def _check_staging(session: Session, policy: RolloutPolicy, candidate: Version) -> None:
    staging = policy.staging_endpoint
    if staging is not None and not rollouts.has_completed(session, staging, candidate.id):
        raise ConflictError(
            f"{candidate.ref} has not completed a rollout at {staging}, which this endpoint asks for first",
            next_step=f"Run it there: `signalbox rollout start {staging} {candidate.ref}`.",
            staging_endpoint=staging,
        )


def _check_freeze(session: Session, endpoint: str, plan: Plan, now: float) -> None:
    window = freeze.active(freeze_windows.near(session, now), endpoint, now)
    if window is not None and plan.break_freeze is None:
        raise ConflictError(
            f"{endpoint} is {freeze.told(window, now)}",
            next_step="Wait until then; or break the freeze with a reason, which a second person approves.",
            freeze_window=window.id,
            until=window.end_at(now),
        )


def _insert(
    ctx: Context, session: Session, endpoint: Endpoint, candidate: Version, plan: Plan, actor: str, now: float
) -> Row:
    needs_second = ctx.settings.four_eyes and (plan.skip_gates or plan.break_freeze) is not None
    row = Row(
        id=new_id(),
        endpoint=endpoint.name,
        stable_version_id=endpoint.version_id,
        candidate_version_id=candidate.id,
        stable_handler=endpoint.handler,
        candidate_handler=_handler(endpoint, candidate),
        plan=rollouts.plan_json(plan),
        state=RolloutState.AWAITING_WAIVER if needs_second else RolloutState.STARTING,
        step_index=0,
        weight=0.0,
        mirror=0.0,
        holds=[],
        entered_at=now,
        baked_s=0.0,
        step_requests=0,
        revision=1,
        warm_until=None,
        ending=None,
        reason=None,
        reason_code=None,
        full=False,
        created_by=actor,
        created_at=now,
        ended_at=None,
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    nothing = evidence.to_json(evidence.start(plan.guardrails))
    session.add(RolloutEvidence(rollout_id=row.id, cursor_ms=round(now * 1000), state=nothing, captures={}))
    return row


def _handler(endpoint: Endpoint, candidate: Version) -> str:
    """The candidate's own handler, unless the endpoint serves its versions with another one than theirs."""
    return candidate.handler if endpoint.handler == endpoint.version.handler else endpoint.handler


def _message(row: Row, endpoint: str, stable: str, candidate: str, actor: str, *, closed: bool) -> str:
    plan = rollouts.value_of(row).plan
    parts = [f"{actor} started a {plan.strategy} rollout of {candidate} to {endpoint}, against {stable}"]
    if plan.skip_gates:
        parts.append(f"without gates: {plan.skip_gates}")
    if plan.break_freeze:
        parts.append(f"in a freeze: {plan.break_freeze}")
    if row.state == RolloutState.AWAITING_WAIVER:
        parts.append("a second person has to approve it")
    if closed:
        parts.append("rolling back the one before needs new agents from now on")
    return "; ".join(parts)
