"""What an endpoint is doing, in one word and one sentence, from its goal and its agents. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from control_plane.domain import backoff
from control_plane.domain.endpoint import (
    LIVE_PHASES,
    UNCHECKED,
    AgentPhase,
    EndpointGoal,
    EndpointHealth,
    HealthCheck,
)

CRASH_WINDOW_S: Final = 600.0
"""Failures longer ago than this say nothing about now."""


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """One agent. Times are UTC seconds.

    current: it was started with exactly what the goal asks for; in_traffic: the gateway sends it requests.
    """

    id: str
    version_ref: str
    phase: str
    current: bool
    in_traffic: bool = False
    reason: str | None = None
    ready_at: float | None = None
    ended_at: float | None = None
    check: HealthCheck = UNCHECKED


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """An endpoint's goal, where its requests go, and its live and lately failed agents, newest first."""

    goal: str
    replicas: int
    version_ref: str
    serving_ref: str | None
    agents: Sequence[AgentFacts]
    now: float


@dataclass(frozen=True, slots=True)
class Health:
    """The word, the sentence, and how many agents are ready that the goal asks for."""

    word: EndpointHealth
    sentence: str
    ready: int


def assess(facts: EndpointFacts) -> Health:
    """Say how the endpoint is doing.

    An agent counts as ready once the gateway sends it requests. READY: as many current agents as wanted are
    ready and requests go to the wanted version alone. CRASH_LOOP: none is ready and three or more failed in a
    row within ten minutes. DEGRADED: some are ready and others
    fail, or a model fails its own test inferences again and again.
    UPDATING: requests are answered while agents come or go. STARTING: nothing was served yet.
    """
    live = [agent for agent in facts.agents if agent.phase in LIVE_PHASES]
    if facts.goal != EndpointGoal.RUNNING:
        return _ending(facts, live)
    ready = sum(agent.current and _answers(agent) for agent in live)
    old = [agent for agent in live if not agent.current]
    word = _word(facts, ready, old)
    return Health(word, _sentence(facts, word, ready, live), ready)


def _ending(facts: EndpointFacts, live: Sequence[AgentFacts]) -> Health:
    deleted = facts.goal == EndpointGoal.DELETED
    if live:
        what = "Being deleted" if deleted else "Stopping"
        return Health(EndpointHealth.STOPPING, f"{what}: {_count(len(live))} still to end.", 0)
    if deleted:
        return Health(EndpointHealth.STOPPING, "Being deleted.", 0)
    return Health(EndpointHealth.STOPPED, "Stopped; nothing answers here.", 0)


def _word(facts: EndpointFacts, ready: int, old: Sequence[AgentFacts]) -> EndpointHealth:
    failures = len(_failures(facts))
    if ready and _unsound(facts):
        return EndpointHealth.DEGRADED
    if ready >= facts.replicas:
        settled = not old and facts.serving_ref == facts.version_ref
        return EndpointHealth.READY if settled else EndpointHealth.UPDATING
    if ready == 0 and failures >= backoff.CRASH_LOOP_FAILURES:
        return EndpointHealth.CRASH_LOOP
    if failures and (ready or facts.serving_ref is not None):
        return EndpointHealth.DEGRADED
    return EndpointHealth.STARTING if facts.serving_ref is None else EndpointHealth.UPDATING


def _answers(agent: AgentFacts) -> bool:
    return agent.phase == AgentPhase.READY and agent.in_traffic


def _unsound(facts: EndpointFacts) -> list[AgentFacts]:
    """Ready agents whose model fails its own test inferences again and again."""
    return [agent for agent in facts.agents if agent.phase == AgentPhase.READY and agent.check.failing]


def _failures(facts: EndpointFacts) -> list[AgentFacts]:
    """Agents of the present goal that failed in a row, not longer ago than the window, newest first."""
    in_a_row = set(backoff.failures(_lives(facts), facts.now))
    return [
        agent
        for agent in facts.agents
        if agent.current
        and agent.phase == AgentPhase.FAILED
        and agent.ended_at in in_a_row
        and facts.now - agent.ended_at <= CRASH_WINDOW_S
    ]


def _lives(facts: EndpointFacts) -> list[backoff.Life]:
    return [
        backoff.Life(
            agent.ready_at,
            agent.ended_at,
            agent.phase == AgentPhase.FAILED,
            backoff.sound_until(agent.check),
        )
        for agent in facts.agents
        if agent.current
    ]


def _sentence(facts: EndpointFacts, word: EndpointHealth, ready: int, live: Sequence[AgentFacts]) -> str:
    parts = [f"{ready} of {_count(facts.replicas)} ready"]
    failures = _failures(facts)
    if word == EndpointHealth.CRASH_LOOP:
        wait_s = max(0.0, backoff.next_attempt_at(_lives(facts), facts.now) - facts.now)
        parts.append(f"{facts.version_ref} failed {len(failures)} times or more in ten minutes")
        parts.append(f"next attempt in {wait_s:.0f} s" if wait_s >= 1 else "next attempt now")
    if failures and word != EndpointHealth.READY:
        parts.append(f"agent {failures[0].id} failed: {failures[0].reason or 'no reason given'}".rstrip("."))
    parts.extend(_test_failure(agent) for agent in _unsound(facts)[:1])
    parts.extend(_busy(agent) for agent in live if _is_busy(agent))
    if facts.serving_ref is not None and facts.serving_ref != facts.version_ref:
        parts.append(f"requests still go to {facts.serving_ref}")
    return "; ".join(parts[:5]) + "."


def _test_failure(agent: AgentFacts) -> str:
    why = agent.check.last_error or "no reason given"
    return f"agent {agent.id} fails its test inference: {why}".rstrip(".")


def _is_busy(agent: AgentFacts) -> bool:
    return not _answers(agent)


def _busy(agent: AgentFacts) -> str:
    if agent.phase == AgentPhase.READY:
        return f"agent {agent.id} is joining the gateway with {agent.version_ref}"
    return f"agent {agent.id} is {agent.phase} {agent.version_ref}"


def _count(number: int) -> str:
    return f"{number} agent" if number == 1 else f"{number} agents"
