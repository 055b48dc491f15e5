"""One snapshot of all that a plan needs: rows, processes, agents' answers and the gateway."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from sqlalchemy import Engine

from control_plane.agent_client import AgentClient
from control_plane.controller import judgement, rows
from control_plane.controller.snapshot import (
    AgentSeen,
    EndpointSeen,
    ExitSeen,
    Limits,
    ProcessSeen,
    Snapshot,
)
from control_plane.domain.endpoint import LIVE_PHASES, AgentPhase
from control_plane.gateway.base import Gateway
from control_plane.gateway.traffic_plan import GatewayState, also_reached
from control_plane.platforms.base import AgentProcess, Platform
from control_plane.registry import session
from serving_agent.contract.status import AgentStatus

_ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_ID_CHARS = 8
CLOCK_SLACK_S = 2.0
"""Creation times of one process may differ by this much after the system's clock was set."""


class Since:
    """Remembers since when a condition has held, by key; a controller that takes over counts anew."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def update(self, keys: Iterable[str], now: float) -> dict[str, float]:
        """Say for how long it has held for each of *keys*; all others are forgotten."""
        self._since = {key: min(self._since.get(key, now), now) for key in keys}
        return {key: now - since for key, since in self._since.items()}


class Observer:
    """Makes snapshots. Not thread-safe: owned by the loop."""

    def __init__(
        self,
        engine: Engine,
        platform: Platform,
        gateway: Gateway,
        client: AgentClient,
        *,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._platform = platform
        self._gateway = gateway
        self._client = client
        self._limits = limits
        self._clock = clock
        self._silent, self._unrouted, self._draining, self._failing = Since(), Since(), Since(), Since()

    def observe(self) -> Snapshot:
        """Read everything once. Takes at most about one health timeout."""
        with session.read(self._engine) as db:
            endpoints, agents = rows.endpoints(db, self._clock()), rows.agents(db)
        running = self._platform.running()
        statuses = self._client.statuses(
            {a.id: a.rest_address for a in agents if a.id in running and a.phase in LIVE_PHASES}
        )
        gateway = self._gateway.observe()
        now = self._clock()
        seen = tuple(self._with_process(agent, running, statuses) for agent in agents)
        return Snapshot(
            now=now,
            endpoints=endpoints,
            agents=self._with_durations(seen, endpoints, gateway, now),
            strays=tuple(sorted(set(running) - {agent.id for agent in agents})),
            gateway=gateway,
            fresh_ids=tuple(fresh_id() for _ in range(self._limits.start_slots)),
            limits=self._limits,
        )

    def _with_process(
        self, agent: AgentSeen, running: Mapping[str, AgentProcess], statuses: Mapping[str, AgentStatus]
    ) -> AgentSeen:
        process = running.get(agent.id)
        if process is not None:
            status = statuses.get(agent.id)
            own = status if status is not None and status.agent_id == agent.id else None
            return replace(agent, process=_same(agent.recorded, process), status=own)
        if agent.phase not in LIVE_PHASES:
            return agent
        end = self._platform.exit_of(agent.id)
        return replace(agent, exit=ExitSeen(end.reason, end.code) if end else None)

    def _with_durations(
        self,
        agents: tuple[AgentSeen, ...],
        endpoints: tuple[EndpointSeen, ...],
        gateway: GatewayState,
        now: float,
    ) -> tuple[AgentSeen, ...]:
        names = {endpoint.id: endpoint.name for endpoint in endpoints}
        live = [agent for agent in agents if agent.phase in LIVE_PHASES]
        silent = self._silent.update((a.id for a in live if a.process and a.status is None), now)
        draining = self._draining.update((a.id for a in live if a.phase is AgentPhase.DRAINING), now)
        failing = self._failing.update((a.id for a in live if judgement.failing(a)), now)
        unrouted = self._unrouted.update(
            (a.id for a in live if not routed(a, names.get(a.endpoint_id, ""), gateway)), now
        )
        return tuple(
            replace(
                agent,
                silent_s=silent.get(agent.id, 0.0),
                draining_s=draining.get(agent.id, 0.0),
                unrouted_s=unrouted.get(agent.id, 0.0),
                failing_s=failing.get(agent.id, 0.0),
            )
            for agent in agents
        )


def routed(agent: AgentSeen, endpoint: str, gateway: GatewayState) -> bool:
    """Whether the gateway may send requests to the agent now; assumed while the gateway does not answer."""
    if not gateway.live:
        return True
    state = gateway.backends.get((endpoint, agent.version))
    member = state is not None and agent.id in state.agents
    weighted = gateway.weights.get(endpoint, {}).get(agent.version, 0.0) > 0
    return member and (weighted or agent.version in also_reached(gateway.extras.get(endpoint, "")))


def fresh_id() -> str:
    """A short random agent id, without letters that are easily mistaken."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARS))


def _same(recorded: ProcessSeen | None, process: AgentProcess) -> ProcessSeen:
    """The process as its row has it, if that is this one."""
    if recorded is not None and recorded.pid == process.pid:
        drift_s = abs(recorded.started_at - process.started_at)
        return recorded if drift_s <= CLOCK_SLACK_S else ProcessSeen(process.pid, process.started_at)
    return ProcessSeen(process.pid, process.started_at)
