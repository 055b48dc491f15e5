"""Rollouts as services return them: rows, verdicts and what is measured, put in words for people."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy.orm import Session

from control_plane.domain import rollout as moves
from control_plane.domain import rollout_policy
from control_plane.domain.endpoint import AgentPhase
from control_plane.domain.freeze import Window
from control_plane.domain.rollout import IN_TRAFFIC, Command, Rollout, RolloutState
from control_plane.domain.views import DisagreementView, GateView, RolloutView, StepView
from control_plane.registry import endpoints, freeze_windows, rollout_history, rollouts
from control_plane.registry.leases import CONTROLLER
from control_plane.registry.tables import Agent, Disagreement, Endpoint, Lease
from control_plane.registry.tables import Rollout as Row
from control_plane.services import rollout_commands, rollout_words
from control_plane.services.context import Context
from control_plane.services.rollout_words import HOLDABLE
from control_plane.telemetry import evaluate
from control_plane.telemetry.local_store import LocalStore
from control_plane.telemetry.series import GATEWAY_REQUESTS

logger = logging.getLogger(__name__)

FREEZE: Final = "freeze"
"""Hold reason: a freeze window."""
HELD: Final = "held"
OBSERVED_S: Final = 60.0
_SIGNATURE_GATE: Final = GateView(
    name="signature",
    title="Signature match",
    outcome="passed",
    sentence="inputs and outputs have the same names, types and shapes as those of stable",
)
"""Passed by every rollout there is: it is checked before one begins."""


@dataclass(frozen=True, slots=True)
class _Scene:
    """What all views of one answer share."""

    now: float
    controller_age_s: float | None
    requests: Mapping[tuple[str, str], float]
    """Requests of the last minute by (endpoint, version)."""
    windows: Sequence[Window]
    newest: frozenset[str]
    """Ids of rollouts that are their endpoints' newest."""
    endpoints: Mapping[str, Endpoint]
    candidates: Mapping[str, Sequence[Agent]] = field(default_factory=dict)
    """Live and failed agents of the candidate, newest first, by rollout id; of rollouts that start."""


def views(ctx: Context, session: Session, rows: Sequence[Row]) -> tuple[RolloutView, ...]:
    """*rows* as views, in a constant number of queries."""
    scene = _scene(ctx, session, rows)
    return tuple(_view(ctx, row, scene) for row in rows)


def disagreement_view(row: Disagreement) -> DisagreementView:
    """*row* as services return it."""
    return DisagreementView(
        id=row.id,
        at=row.at,
        request_id=row.request_id,
        distance=row.distance,
        inputs=row.inputs,
        answers=row.answers,
        debug_link=f"/debugger?rollout={row.rollout_id}&disagreement={row.id}",
    )


def _scene(ctx: Context, session: Session, rows: Sequence[Row]) -> _Scene:
    now = time.time()
    active = [row for row in rows if row.state not in moves.ENDED]
    names = {row.endpoint for row in rows}
    by_name = {row.name: row for row in endpoints.named(session, names)}
    return _Scene(
        now=now,
        controller_age_s=_controller_age(ctx, session, now),
        requests=_requests(ctx, now) if active else {},
        windows=freeze_windows.near(session, now) if active else (),
        newest=rollout_history.newest_ids(session, names),
        endpoints=by_name,
        candidates=_candidates(session, active, by_name),
    )


def _controller_age(ctx: Context, session: Session, now: float) -> float | None:
    """Seconds since the lease was renewed; None while it is held. One that was given back has no age: inf."""
    lease = session.get(Lease, CONTROLLER)
    if lease is None or not lease.expires_at:
        return float("inf")
    return None if lease.expires_at > now else now - lease.expires_at + ctx.settings.lease_s


def _requests(ctx: Context, now: float) -> dict[tuple[str, str], float]:
    """Requests of the last minute; none where the measurements cannot be read, which nothing depends on."""
    store = LocalStore(ctx.settings.metrics_path)
    counted: defaultdict[tuple[str, str], float] = defaultdict(float)
    try:
        stored = store.read(GATEWAY_REQUESTS, evaluate.Window(now - OBSERVED_S, OBSERVED_S / 4, 4))
    except (sqlite3.Error, OSError) as error:
        logger.warning("the observed weight cannot be read: %s", error)
        return {}
    for one in stored:
        key = (one.labels.get("endpoint", ""), one.labels.get("version", ""))
        counted[key] += float(one.value.sum())
    return counted


def _candidates(
    session: Session, active: Sequence[Row], by_name: Mapping[str, Endpoint]
) -> dict[str, list[Agent]]:
    starting = {row.id: row for row in active if row.state == RolloutState.STARTING}
    ids = [by_name[row.endpoint].id for row in starting.values() if row.endpoint in by_name]
    agents = endpoints.shown_agents(session, ids) if ids else ()
    return {
        rollout_id: [
            agent
            for agent in agents
            if agent.version_id == row.candidate_version_id
            and agent.created_at >= row.created_at
            and agent.endpoint.name == row.endpoint
        ]
        for rollout_id, row in starting.items()
    }


def _view(ctx: Context, row: Row, scene: _Scene) -> RolloutView:
    rollout = rollouts.value_of(row)
    frozen = rollout_commands.frozen(rollout, scene.windows, scene.now)
    holds = _holds(rollout, frozen)
    verdict: Mapping[str, Any] = row.verdict or {}
    endpoint = scene.endpoints.get(row.endpoint)
    step = rollout.step
    return RolloutView(
        id=row.id,
        endpoint=row.endpoint,
        strategy=rollout.plan.strategy,
        stable_ref=rollout.stable,
        candidate_ref=rollout.candidate,
        stable_digest=row.stable.artifact_digest,
        candidate_digest=row.candidate.artifact_digest,
        state=HELD if holds else rollout.state,
        phase=rollout.state,
        sentence=rollout_words.sentence(rollout, verdict, frozen),
        holds=holds,
        frozen=frozen,
        step=rollout.step_index + 1,
        steps=_steps(rollout),
        weight=rollout.weight,
        observed_weight=_observed(rollout, scene),
        mirror=rollout.mirror,
        next_weight=None if rollout.is_last_step else rollout.plan.steps[rollout.step_index + 1].weight,
        verdict=verdict.get("kind"),
        reason=_reason(rollout, verdict),
        code=rollout.reason_code or verdict.get("code"),
        verdict_at=verdict.get("at"),
        eta_s=verdict.get("eta_s"),
        readings=tuple(verdict.get("readings", ())),
        baked_s=rollout.baked_s,
        bake_left_s=max(0.0, step.bake_s - rollout.baked_s) if rollout.active else 0.0,
        step_requests=rollout.step_requests,
        auto_advance=rollout.plan.auto_advance,
        skip_gates=rollout.plan.skip_gates,
        gates=_gates(row),
        revision=rollout.revision,
        commands=_commands(row, rollout, scene, frozen=frozen is not None),
        preview_url=preview_url(ctx, row.endpoint),
        tester_header=endpoint is not None and rollout_policy.parse(endpoint.rollout_policy).tester_header,
        warm_until=rollout.warm_until,
        entered_at=rollout.entered_at,
        created_by=row.created_by,
        created_at=row.created_at,
        ended_at=row.ended_at,
        controller_age_s=_age_shown(rollout, scene),
        waiting_for=_waiting_for(rollout, row, scene, endpoint),
    )


def preview_url(ctx: Context, endpoint: str) -> str:
    """Where a rollout's candidate answers beside its endpoint."""
    return f"{ctx.settings.gateway_url}/preview/{endpoint}"


def _holds(rollout: Rollout, frozen: str | None) -> tuple[str, ...]:
    if rollout.state not in HOLDABLE:
        return ()
    return tuple(sorted(rollout.holds | ({FREEZE} if frozen else frozenset())))


def _age_shown(rollout: Rollout, scene: _Scene) -> float | None:
    """The controller's age, no greater than the rollout's time in its state, in which it did nothing."""
    if scene.controller_age_s is None:
        return None
    return min(scene.controller_age_s, max(0.0, scene.now - rollout.entered_at))


def _observed(rollout: Rollout, scene: _Scene) -> float | None:
    stable, candidate = (
        scene.requests.get((rollout.endpoint, ref), 0.0) for ref in (rollout.stable, rollout.candidate)
    )
    total = stable + candidate
    return candidate / total if rollout.active and total else None


def _steps(rollout: Rollout) -> tuple[StepView, ...]:
    return tuple(
        StepView(
            number=index + 1,
            weight=step.weight,
            mirror=step.mirror,
            bake_s=step.bake_s,
            min_requests=step.min_requests,
            approval=step.approval,
            place=_place(rollout, index),
        )
        for index, step in enumerate(rollout.plan.steps)
    )


def _place(rollout: Rollout, index: int) -> str:
    if index < rollout.step_index or rollout.state is RolloutState.COMPLETED:
        return "done"
    return "current" if index == rollout.step_index and rollout.state in IN_TRAFFIC else "ahead"


def _gates(row: Row) -> tuple[GateView, ...]:
    stored = tuple(
        GateView(
            name=each["name"],
            title=each.get("title") or each["name"].replace("_", " ").replace("-", " ").capitalize(),
            outcome=each["outcome"],
            sentence=each["sentence"],
            figures=each.get("figures") or {},
        )
        for each in row.gates or ()
    )
    return stored if any(each.name == _SIGNATURE_GATE.name for each in stored) else (_SIGNATURE_GATE, *stored)


def _commands(row: Row, rollout: Rollout, scene: _Scene, *, frozen: bool) -> tuple[str, ...]:
    refused = rollout_commands.FORWARD if frozen or rollout_commands.has_failed(row) else frozenset()
    known = [each for each in Command if each not in refused and moves.allowed(rollout, each, scene.now)]
    endpoint = scene.endpoints.get(row.endpoint) if row.id in scene.newest else None
    if rollout_commands.needs_new_agents(rollout, row, endpoint, scene.now):
        known.append(Command.ROLLBACK)
    return tuple(each.value for each in known)


def _reason(rollout: Rollout, verdict: Mapping[str, Any]) -> str:
    return rollout.reason or str(verdict.get("sentence") or "")


def _waiting_for(rollout: Rollout, row: Row, scene: _Scene, endpoint: Endpoint | None) -> str | None:
    if rollout.state is RolloutState.AWAITING_WAIVER:
        return f"a second person: {row.created_by} started it"
    if rollout.state is RolloutState.PREFLIGHT:
        return "the gates before traffic"
    if rollout.state is not RolloutState.STARTING:
        return None
    agents = scene.candidates.get(row.id, ())
    wanted = endpoint.replicas if endpoint else 1
    ready = sum(agent.phase == AgentPhase.READY for agent in agents)
    failed = next((agent for agent in agents if agent.phase == AgentPhase.FAILED), None)
    if not agents:
        return f"capacity: no agent of {rollout.candidate} could be started yet"
    last = f"; the last one failed: {failed.reason}" if failed is not None else ""
    return f"agents: {ready} of {wanted} of {rollout.candidate} are ready{last}"
