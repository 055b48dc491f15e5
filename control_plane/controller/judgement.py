"""What an agent's process says about its row: adopted, further along, failed or ended. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from control_plane.controller.actions import (
    Action,
    EndAgent,
    FailAgent,
    RecordCheck,
    RecordPhase,
    RecordProcess,
)
from control_plane.controller.snapshot import AgentSeen, ExitSeen, Limits
from control_plane.domain.endpoint import LIVE_PHASES, AgentPhase, HealthCheck
from serving_agent.contract.status import CheckStatus

_ORDER = (AgentPhase.STARTING, AgentPhase.LOADING, AgentPhase.WARMING, AgentPhase.READY)
_LOST = ExitSeen("its process is gone and left no reason", None)

UNREADY_FAILURES: Final = 3
"""So many failed tests in a row make an agent say that it is not ready."""
FIRST_TEST_S: Final = 5.0
"""So long after ready an agent's first test is waited for before it may take over from others."""
RECORD_EVERY_S: Final = 30.0
"""What changes between healthy and not at every test is not written more often than this."""

Judged = tuple[AgentSeen, tuple[Action, ...]]


def judge(agent: AgentSeen, now: float, limits: Limits) -> Judged:
    """Return the agent as its row will read, and the actions that write it there."""
    if agent.phase not in LIVE_PHASES:
        return agent, ()
    if agent.process is None:
        return _without_process(agent, now)
    complaint = _complaint(agent, now, limits)
    if complaint is not None:
        return _fail(agent, ExitSeen(complaint, None), now)
    agent, advanced = _advance(agent, now)
    agent, learned = _check(agent, now)
    return agent, (*advanced, *learned)


def servable(agent: AgentSeen, limits: Limits) -> bool:
    """Whether requests may go to it: it lives, is ready, and says so (or is silent only briefly)."""
    if agent.phase is not AgentPhase.READY or agent.process is None:
        return False
    if agent.status is None:
        return agent.silent_s < limits.silent_unready_s
    return agent.status.phase == "ready"


def failing(agent: AgentSeen) -> bool:
    """Whether the model has failed its own tests so often in a row that the agent says it is not ready.

    The last known verdict holds while the agent is silent.
    """
    if agent.status is None:
        return agent.check.failing
    return agent.status.check.failures >= UNREADY_FAILURES


def proven(agent: AgentSeen, now: float) -> bool:
    """Whether it may take over from agents that serve: it has passed a test of its own, or runs none.

    A first test that cannot be run in time says nothing, and is not waited for longer than FIRST_TEST_S.
    """
    if agent.spec.options.check_interval_s == 0 or agent.check.passed:
        return True
    if agent.ready_at is None or (agent.status is not None and agent.status.check.failures):
        return False
    return now - agent.ready_at >= FIRST_TEST_S


def verdict(agent: AgentSeen) -> str:
    """Why an agent that is not fit to serve is given up, in one sentence."""
    error = (agent.status.check.last_error if agent.status else None) or agent.check.last_error
    return f"its test inference has failed for {agent.failing_s:.0f} s: {error or 'no reason given'}"


def _check(agent: AgentSeen, now: float) -> Judged:
    """Record what its tests say when that is news, and a measured effect."""
    if agent.status is None or agent.phase is AgentPhase.DRAINING:
        return agent, ()
    check = _found(agent.status.check, agent.check, now)
    effect = agent.status.effect or agent.effect
    if effect == agent.effect and not _is_news(check, agent.check, now):
        return agent, ()
    return replace(agent, check=check, effect=effect), (RecordCheck(agent.id, check, effect, now),)


def _found(said: CheckStatus, known: HealthCheck, now: float) -> HealthCheck:
    """What the agent says of its tests, as its row would hold it from now on."""
    return HealthCheck(
        state=said.state,
        since=known.since if said.state == known.state else now,
        last_error=said.last_error,
        last_error_at=said.last_error_at,
        failing=said.failures >= UNREADY_FAILURES,
        failing_since=(known.failing_since or now) if said.failures else None,
        passed=known.passed or said.state == "healthy",
        recorded_at=now,
    )


def _is_news(found: HealthCheck, known: HealthCheck, now: float) -> bool:
    """Whether to write it: a verdict at once, another state or error not too soon after the last time."""
    if (found.failing, found.passed) != (known.failing, known.passed):
        return True
    if (found.state, found.last_error) == (known.state, known.last_error):
        return False
    return known.recorded_at is None or abs(now - known.recorded_at) >= RECORD_EVERY_S


def _without_process(agent: AgentSeen, now: float) -> Judged:
    if agent.phase is AgentPhase.DRAINING:
        code = agent.exit.code if agent.exit else None
        ended = replace(agent, phase=AgentPhase.STOPPED, ended_at=now)
        return ended, (EndAgent(agent.id, code, now),)
    if agent.exit is None and agent.recorded is None:
        return agent, ()
    return _fail(agent, agent.exit or _LOST, now)


def _fail(agent: AgentSeen, end: ExitSeen, now: float) -> Judged:
    failed = replace(agent, phase=AgentPhase.FAILED, ended_at=now, reason=end.reason)
    return failed, (FailAgent(agent.id, end.reason, end.code, now),)


def _complaint(agent: AgentSeen, now: float, limits: Limits) -> str | None:
    if agent.phase is AgentPhase.DRAINING or agent.process is None:
        return None
    if agent.ready_at is None and now - agent.process.started_at > limits.start_timeout_s:
        doing = agent.status.phase if agent.status else agent.phase.value
        return f"did not become ready within {limits.start_timeout_s:g} s: still {doing}"
    if agent.ready_at is not None and agent.silent_s > limits.silent_kill_s:
        return f"its process lives but has not answered for {limits.silent_kill_s:g} s"
    if agent.status is not None and agent.status.busy_s > limits.busy_kill_s:
        return f"one request has run for {agent.status.busy_s:.0f} s: the model hangs"
    return None


def _advance(agent: AgentSeen, now: float) -> Judged:
    actions: tuple[Action, ...] = ()
    if agent.process is not None and agent.recorded != agent.process:
        actions = (RecordProcess(agent.id, agent.process),)
        agent = replace(agent, recorded=agent.process)
    phase = _reported(agent)
    if phase is None or agent.status is None:
        return agent, actions
    ready_at = now if phase is AgentPhase.READY else None
    timings = _timings(agent, now, ready=phase is AgentPhase.READY)
    record = RecordPhase(agent.id, phase, timings, agent.status.device, now)
    return replace(agent, phase=phase, ready_at=ready_at, timings_s=timings), (*actions, record)


def _reported(agent: AgentSeen) -> AgentPhase | None:
    """The phase to record: only ever a later one than the row has."""
    if agent.status is None or agent.phase not in _ORDER or agent.status.phase not in _ORDER:
        return None
    phase = AgentPhase(agent.status.phase)
    return phase if _ORDER.index(phase) > _ORDER.index(agent.phase) else None


def _timings(agent: AgentSeen, now: float, *, ready: bool) -> dict[str, float]:
    """Seconds per stage; `start` is all that passed before the agent's own first stage."""
    own = dict(agent.status.timings_s) if agent.status else {}
    if not ready:
        return own
    return {"start": max(0.0, now - agent.created_at - sum(own.values())), **own}
