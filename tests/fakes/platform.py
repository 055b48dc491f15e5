"""A platform in memory that passes the same contract suite as real processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from control_plane.errors import UnavailableError
from control_plane.platforms.base import TAIL_LINES, Addresses, AgentExit, AgentProcess
from control_plane.platforms.exits import in_words
from serving_agent.contract.manifest import Manifest
from serving_agent.contract.status import AgentStatus, CheckStatus, OptionsEffect, Phase

HEALTHY = CheckStatus(state="healthy")


@dataclass
class FakeAgent:
    """One pretended process: tests set what it says and how it ends."""

    manifest: Manifest
    process: AgentProcess
    phase: Phase = "ready"
    silent: bool = False
    in_flight: int = 0
    obeys: bool = True
    """Whether it ends when asked to."""
    asked: int = 0
    examples: Mapping[str, Any] | None = None
    check: CheckStatus = HEALTHY
    effect: OptionsEffect | None = None
    timings_s: dict[str, float] = field(default_factory=lambda: {"import": 0.5, "load": 0.2, "warm": 0.1})


class FakePlatform:
    """`base.Platform` without processes.

    first_phase: what new agents say at once; refuse: a sentence makes every start fail; lose_replies: starts
    happen, but the caller gets an error. `started` counts real starts by agent id.
    """

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.agents: dict[str, FakeAgent] = {}
        self.started: dict[str, int] = {}
        self.exits: dict[str, AgentExit] = {}
        self.logs: dict[str, list[str]] = {}
        self.first_phase: Phase = "ready"
        self.refuse: str | None = None
        self.lose_replies = False
        self._clock = clock
        self._next_pid = 1000
        self._on_exit: Callable[[], None] = lambda: None

    def addresses(self, agent_id: str) -> Addresses:
        return Addresses(f"unix:/fake/{agent_id}.rest", f"unix:/fake/{agent_id}.grpc")

    def running(self) -> Mapping[str, AgentProcess]:
        return {agent_id: agent.process for agent_id, agent in self.agents.items()}

    def start(self, manifest: Manifest, examples: Mapping[str, Any] | None = None) -> AgentProcess:
        if self.refuse is not None:
            raise UnavailableError(self.refuse)
        agent_id = manifest.agent_id
        if agent_id not in self.agents:
            self._next_pid += 1
            process = AgentProcess(agent_id, self._next_pid, self._clock())
            self.agents[agent_id] = FakeAgent(manifest, process, self.first_phase, examples=examples)
            self.started[agent_id] = self.started.get(agent_id, 0) + 1
            self.exits.pop(agent_id, None)
        if self.lose_replies:
            raise ConnectionError("the reply was lost")
        return self.agents[agent_id].process

    def stop(self, agent_id: str) -> None:
        agent = self.agents.get(agent_id)
        if agent is None:
            return
        agent.asked += 1
        if agent.obeys:
            self.end(agent_id, 0)

    def kill(self, agent_id: str) -> None:
        if agent_id in self.agents:
            self.end(agent_id, -9)

    def end(self, agent_id: str, code: int, reason: str | None = None) -> None:
        """Let the agent's process be gone."""
        del self.agents[agent_id]
        self.exits[agent_id] = AgentExit(reason or in_words(code), code)
        self._on_exit()

    def exit_of(self, agent_id: str) -> AgentExit | None:
        return None if agent_id in self.agents else self.exits.get(agent_id)

    def log_tail(self, agent_id: str, lines: int = TAIL_LINES) -> tuple[str, ...]:
        return tuple(self.logs.get(agent_id, [])[-lines:])

    def forget(self, agent_id: str) -> None:
        if agent_id not in self.agents:
            self.exits.pop(agent_id, None)
            self.logs.pop(agent_id, None)

    def watch(self, on_exit: Callable[[], None]) -> None:
        self._on_exit = on_exit

    def tidy(self) -> None:
        """Nothing to keep bounded."""


class FakeAgentClient:
    """Answers for the agents of a FakePlatform, as `AgentClient` does."""

    def __init__(self, platform: FakePlatform) -> None:
        self._platform = platform

    def statuses(self, addresses: Mapping[str, str]) -> dict[str, AgentStatus]:
        agents = {agent_id: self._platform.agents.get(agent_id) for agent_id in addresses}
        return {
            agent_id: _status(agent)
            for agent_id, agent in agents.items()
            if agent is not None and not agent.silent
        }

    def close(self) -> None:
        """Nothing to end."""


def _status(agent: FakeAgent) -> AgentStatus:
    return AgentStatus(
        phase=agent.phase,
        agent_id=agent.manifest.agent_id,
        version=agent.manifest.version_ref,
        digest=agent.manifest.digest,
        timings_s=agent.timings_s,
        in_flight=agent.in_flight,
        device="cpu",
        check=agent.check,
        effect=agent.effect,
    )
