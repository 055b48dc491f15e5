"""What becomes of a rollout in one tick: at most one transition, in order of precedence. Pure.

People's commands are in the rollout already when a tick sees it; here is what the controller adds: it goes
forward where the candidate has proven itself, and back where it has failed. What is not known stops it where
it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from control_plane.controller import staffing
from control_plane.controller.actions import MoveRollout, QueueGates
from control_plane.controller.scene import Scene
from control_plane.controller.snapshot import AgentSeen, GatesOutcome, RolloutSeen
from control_plane.domain import rollout as transitions
from control_plane.domain.endpoint import AgentPhase
from control_plane.domain.rollout import ENDED, IN_TRAFFIC, Rollout, RolloutState, VerdictKind
from control_plane.gateway.traffic_plan import compared_step

MAX_WEIGHT_ERROR: Final = 1e-6

Decision = MoveRollout | QueueGates


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the candidate cannot go on, in one sentence with its stable code."""

    code: str
    reason: str


def decide(scene: Scene) -> Decision | None:
    """The next transition of the endpoint's rollout; None where it stays as it is."""
    seen = scene.endpoint.rollout
    if seen is None:
        return None
    rollout = seen.rollout
    if rollout.state in ENDED:
        return _close(scene, rollout)
    if not scene.running:
        return _stopped(scene, rollout)
    if rollout.state is RolloutState.ROLLING_BACK:
        return _finish(scene, seen)
    trouble = _trouble(scene, seen)
    if trouble is not None:
        return _give_up(scene, rollout, trouble)
    return _STATES[rollout.state](scene, seen) if rollout.state in _STATES else None


def applied(scene: Scene, decision: Decision | None) -> Scene:
    """The scene as the rest of this tick is to see it.

    A promotion changes the endpoint itself, which only the next tick sees.
    """
    seen = scene.endpoint.rollout
    if not isinstance(decision, MoveRollout) or seen is None:
        return scene
    if RolloutState.COMPLETED in (decision.after.state, decision.before.state):
        return scene
    endpoint = replace(scene.endpoint, rollout=replace(seen, rollout=decision.after))
    return replace(scene, endpoint=endpoint)


# --- the end of a rollout ---


def _close(scene: Scene, rollout: Rollout) -> Decision | None:
    if rollout.warm_until is None or scene.now < rollout.warm_until:
        return None
    kept = rollout.stable if rollout.state is RolloutState.COMPLETED else rollout.candidate
    after = transitions.closed(rollout)
    return _move(scene, rollout, after, "rollout.closed", f"{kept} is no longer kept warm")


def _stopped(scene: Scene, rollout: Rollout) -> Decision | None:
    after = transitions.ended(
        replace(
            rollout, ending=rollout.ending or RolloutState.ABORTED, weight=0.0, mirror=0.0, holds=frozenset()
        ),
        scene.now,
    )
    reason = rollout.reason or f"{scene.name} was {scene.endpoint.goal.value}"
    after = replace(
        after, reason=reason, reason_code=rollout.reason_code or "endpoint-stopped", warm_until=None
    )
    return _move(scene, rollout, after, f"rollout.{after.state}", f"the rollout is over: {reason}")


def _finish(scene: Scene, seen: RolloutSeen) -> Decision | None:
    """Stable has every request again, by the gateway's own word."""
    rollout = seen.rollout
    if not scene.gateway.live or seen.candidate_spec.version_ref in scene.weights:
        return None
    if _mirrored(scene):
        return None
    after = transitions.ended(rollout, scene.now)
    said = after.state.value.replace("_", " ")
    message = f"{rollout.candidate} {said} on {rollout.endpoint}: {rollout.reason}"
    return _move(scene, rollout, after, f"rollout.{after.state}", message)


def _give_up(scene: Scene, rollout: Rollout, trouble: Trouble) -> Decision:
    before_traffic = rollout.state not in IN_TRAFFIC
    ending = RolloutState.FAILED if before_traffic else RolloutState.ROLLED_BACK
    after = transitions.rolling_back(
        rollout, scene.now, reason=trouble.reason, code=trouble.code, ending=ending
    )
    verb = "gives up" if before_traffic else "rolls back"
    message = f"the controller {verb} {rollout.candidate} on {rollout.endpoint}: {trouble.reason}"
    return _move(scene, rollout, after, "rollout.rolling_back", message)


# --- what ends it at once ---


def _trouble(scene: Scene, seen: RolloutSeen) -> Trouble | None:
    rollout = seen.rollout
    if rollout.state in (RolloutState.STARTING, RolloutState.PREFLIGHT):
        return _start_trouble(scene, seen)
    if rollout.state not in IN_TRAFFIC:
        return None
    hard = _crashed(scene, seen) or _not_ready(scene, seen) or _hangs(scene, seen)
    if hard is None and seen.verdict is not None and seen.verdict.kind is VerdictKind.FAIL:
        return Trouble(seen.verdict.code, seen.verdict.sentence)
    return hard


def _start_trouble(scene: Scene, seen: RolloutSeen) -> Trouble | None:
    rollout = seen.rollout
    failed = [agent for agent in _failed(scene, seen) if agent.created_at >= rollout.created_at]
    if len(failed) >= scene.limits.start_failures:
        return Trouble(
            "start-failed", f"{len(failed)} agents of {rollout.candidate} failed: {_why(failed[-1])}"
        )
    said_no = seen.gates.outcome in (GatesOutcome.FAILED, GatesOutcome.BROKEN)
    if rollout.state is RolloutState.PREFLIGHT and said_no:
        return Trouble(seen.gates.code, seen.gates.reason)
    waited = scene.now - rollout.entered_at
    if waited > rollout.plan.start_deadline_s and not _stays(seen):
        doing = "its agents" if rollout.state is RolloutState.STARTING else "the gates"
        return Trouble(
            "start-deadline", f"{doing} did not get ready within {rollout.plan.start_deadline_s:g} s"
        )
    return None


def _crashed(scene: Scene, seen: RolloutSeen) -> Trouble | None:
    """An agent of the candidate that was ready has failed while requests, or copies, reach it."""
    began = seen.rollout.entered_at
    for agent in _failed(scene, seen):
        if agent.ready_at is not None and agent.ended_at is not None and agent.ended_at >= began:
            return Trouble("agent-failed", f"agent {agent.id} of {agent.version} failed: {_why(agent)}")
    return None


def _not_ready(scene: Scene, seen: RolloutSeen) -> Trouble | None:
    """No agent of the candidate may serve, and one of stable's may: what silences both is not its fault."""
    version = seen.candidate_spec.version_ref
    if any(scene.servable(agent) for agent in scene.of(seen.candidate_spec)):
        return None
    if not any(scene.servable(agent) for agent in scene.of(seen.stable_spec)):
        return None
    return Trouble("not-ready", f"no agent of {version} is ready any more")


def _hangs(scene: Scene, seen: RolloutSeen) -> Trouble | None:
    longest = _longest_busy_s(scene.of(seen.candidate_spec))
    if (
        longest <= scene.limits.hang_s
        or _longest_busy_s(scene.of(seen.stable_spec)) > scene.limits.hang_s / 4
    ):
        return None
    return Trouble(
        "hangs", f"one request has kept the model of {seen.rollout.candidate} busy for {longest:.0f} s"
    )


def _failed(scene: Scene, seen: RolloutSeen) -> list[AgentSeen]:
    spec = seen.candidate_spec
    return [a for a in scene.agents if a.spec == spec and a.phase is AgentPhase.FAILED]


def _why(agent: AgentSeen) -> str:
    return agent.reason or (agent.exit.reason if agent.exit else "no reason is known")


def _longest_busy_s(agents: tuple[AgentSeen, ...]) -> float:
    return max((agent.status.busy_s for agent in agents if agent.status), default=0.0)


# --- forward ---


def _starting(scene: Scene, seen: RolloutSeen) -> Decision | None:
    rollout = seen.rollout
    if rollout.holds or not staffing.complete(scene, seen.candidate_spec):
        return None
    after = transitions.started(rollout, scene.now)
    message = f"{rollout.candidate} is ready beside {rollout.stable}: the gates run"
    return _move(scene, rollout, after, "rollout.ready", message)


def _preflight(scene: Scene, seen: RolloutSeen) -> Decision | None:
    rollout = seen.rollout
    if seen.gates.outcome is GatesOutcome.NOT_STARTED:
        return QueueGates(rollout.id, rollout.revision, scene.now)
    if seen.gates.outcome is not GatesOutcome.PASSED or _stays(seen):
        return None
    if not staffing.complete(scene, seen.candidate_spec):
        return None
    after = transitions.gates_passed(rollout, scene.now)
    return _move(scene, rollout, after, "rollout.step", _next_step(after))


def _shifting(scene: Scene, seen: RolloutSeen) -> Decision | None:
    rollout = seen.rollout
    if in_force(scene, rollout):
        after = transitions.confirmed(rollout, scene.now)
        message = f"the gateway confirms {rollout.weight:.0%} for {rollout.candidate}"
        return _move(scene, rollout, after, "rollout.confirmed", message)
    late = scene.now - rollout.entered_at > rollout.plan.shift_deadline_s
    if late and scene.gateway.live and (rollout.stable in scene.weights or rollout.weight >= 1):
        reason = (
            f"the gateway did not confirm {rollout.weight:.0%} within {rollout.plan.shift_deadline_s:g} s"
        )
        return _give_up(scene, rollout, Trouble("shift-deadline", reason))
    return None


def _baking(scene: Scene, seen: RolloutSeen) -> Decision | None:
    if _stays(seen) or not _proven(scene, seen):
        return None
    rollout = seen.rollout
    after = transitions.advanced(rollout, scene.now)
    if after.state is RolloutState.AWAITING_APPROVAL:
        message = f"{rollout.candidate} has proven itself at {rollout.weight:.0%}: a person may let it go on"
        return _move(scene, rollout, after, "rollout.awaiting_approval", message)
    if after.state is RolloutState.COMPLETED:
        return _move(scene, rollout, after, "rollout.completed", _completion(rollout))
    return _move(scene, rollout, after, "rollout.step", _next_step(after))


def _stays(seen: RolloutSeen) -> bool:
    return bool(seen.rollout.holds) or seen.frozen is not None


def _proven(scene: Scene, seen: RolloutSeen) -> bool:
    """Whether the step is done: observed long enough, by enough requests, with the verdict it needs."""
    rollout = seen.rollout
    step = rollout.step
    if not step.measures:
        return scene.now - rollout.entered_at >= step.bake_s
    if rollout.baked_s < step.bake_s or rollout.step_requests < step.min_requests:
        return False
    if seen.verdict is None or scene.now - seen.verdict.at > scene.limits.verdict_stale_s:
        return False
    if step.is_final:  # no control is left to compare with: the absolute guard has not failed
        return seen.verdict.kind in (VerdictKind.PASS, VerdictKind.WAIT)
    return seen.verdict.kind is VerdictKind.PASS


def in_force(scene: Scene, rollout: Rollout) -> bool:
    """Whether the gateway's own weights, mirror and step are what the rollout has decided."""
    if not scene.gateway.live:
        return False
    if compared_step(scene.gateway.extras.get(scene.name, "")) not in (None, rollout.step_index):
        return False
    share = scene.weights.get(rollout.candidate, 0.0)
    return abs(share - rollout.weight) <= MAX_WEIGHT_ERROR and _mirrored(scene) == (rollout.mirror > 0)


def _mirrored(scene: Scene) -> bool:
    return '"mirror"' in scene.gateway.extras.get(scene.name, "")


def _next_step(after: Rollout) -> str:
    step = after.step
    number = f"step {after.step_index + 1} of {len(after.plan.steps)}"
    if step.mirror > 0:
        return f"{number}: copies of {step.mirror:.0%} of the requests go to {after.candidate}"
    if step.weight == 0:
        return f"{number}: {after.candidate} is ready to be looked at"
    return f"{number}: {step.weight:.0%} of the requests go to {after.candidate}"


def _completion(rollout: Rollout) -> str:
    if rollout.promotes:
        return f"{rollout.candidate} is the stable version of {rollout.endpoint} now"
    return f"{rollout.candidate} has been compared with {rollout.stable}"


def _move(scene: Scene, before: Rollout, after: Rollout, action: str, message: str) -> MoveRollout:
    return MoveRollout(before, after, action, message, scene.now)


_STATES: Final[dict[RolloutState, Callable[[Scene, RolloutSeen], Decision | None]]] = {
    RolloutState.STARTING: _starting,
    RolloutState.PREFLIGHT: _preflight,
    RolloutState.SHIFTING: _shifting,
    RolloutState.BAKING: _baking,
    RolloutState.FINAL: _baking,
}
