"""Copies of requests that both versions have answered: fetched from agents beside the ticks, and compared.

A thread of its own gathers, since agents may be slow to tell; the analyst takes what is there. Up to where
each agent's captures have been counted is kept with the evidence: after a crash the same captures are fetched
again, and none counts twice.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from control_plane import agent_client
from control_plane.domain import pairs
from control_plane.domain.endpoint import AgentPhase
from control_plane.domain.pairs import Compared
from control_plane.domain.rollout import IN_TRAFFIC, Rollout
from control_plane.registry import rollouts, session
from control_plane.registry.tables import Agent, Endpoint, RolloutEvidence
from serving_agent.contract.capture import Capture

KEPT_WORST: Final = 20
"""Disagreements of one gathering that are kept for the gallery."""
MAX_PAGES: Final = 8
"""Pages read from one agent at a time: what is left is read the next time."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was compared since the last time it was taken."""

    compared: int
    disagreed: int
    worst: tuple[Compared, ...]
    cursors: Mapping[str, int]
    """Number of the last capture that is counted, by agent."""


@dataclass(slots=True)
class _Open:
    """One rollout's captures under way."""

    cursors: dict[str, int]
    stable: tuple[Capture, ...] = ()
    candidate: tuple[Capture, ...] = ()
    compared: int = 0
    disagreed: int = 0
    worst: list[Compared] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Source:
    """An agent to ask."""

    agent_id: str
    address: str
    is_candidate: bool


class Pairing:
    """`gather` runs in one thread, `take` in another."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()

    def gather(self, _now: float) -> None:
        """Fetch and compare what agents have answered to copies since the last time."""
        with session.read(self._engine) as db:
            mirrored = [rollouts.value_of(row) for row in rollouts.standing(db)]
            mirrored = [each for each in mirrored if each.mirror > 0 and each.state in IN_TRAFFIC]
            sources = {each.id: _sources(db, each) for each in mirrored}
            cursors = {each.id: _counted(db, each.id) for each in mirrored}
        with self._lock:
            self._open = {
                rollout_id: self._open.get(rollout_id) or _Open(dict(cursors[rollout_id]))
                for rollout_id in sources
            }
        for rollout_id, asked in sources.items():
            self._gather(rollout_id, asked)

    def take(self, rollout_id: str) -> Gathered | None:
        """What has been compared since it was last taken; None where nothing was."""
        with self._lock:
            kept = self._open.get(rollout_id)
            if kept is None or not kept.compared:
                return None
            taken = Gathered(kept.compared, kept.disagreed, tuple(kept.worst), dict(kept.cursors))
            kept.compared, kept.disagreed, kept.worst = 0, 0, []
            return taken

    def forget(self, rollout_id: str) -> None:
        """Begin anew from what the registry has counted: what was taken could not be written."""
        with self._lock:
            self._open.pop(rollout_id, None)

    def begin_anew(self) -> None:
        """Begin anew for every rollout: another process has counted meanwhile."""
        with self._lock:
            self._open.clear()

    def _gather(self, rollout_id: str, sources: list[_Source]) -> None:
        kept = self._open.get(rollout_id)
        if kept is None:
            return
        cursors = dict(kept.cursors)
        found: dict[bool, list[Capture]] = {False: list(kept.stable), True: list(kept.candidate)}
        for source in sources:
            for _ in range(MAX_PAGES):
                page = agent_client.captures(source.address, cursors.get(source.agent_id, 0), rollout_id)
                if page is None:
                    break
                found[source.is_candidate] += page.captures
                cursors[source.agent_id] = page.last
                if not page.more:
                    break
        joined = pairs.join(found[False], found[True])
        compared = pairs.compared(joined.pairs)
        with self._lock:
            kept.cursors, kept.stable, kept.candidate = cursors, joined.stable, joined.candidate
            kept.compared += len(compared)
            kept.disagreed += sum(not each.comparison.agree for each in compared)
            kept.worst = pairs.worst([*kept.worst, *compared], KEPT_WORST)


def _sources(db: Session, rollout: Rollout) -> list[_Source]:
    query = (
        select(Agent.id, Agent.rest_address, Agent.spec)
        .join(Endpoint, Endpoint.id == Agent.endpoint_id)
        .where(Endpoint.name == rollout.endpoint, Agent.phase == AgentPhase.READY)
    )
    found = [(agent_id, address, spec["version_ref"]) for agent_id, address, spec in db.execute(query)]
    both = (rollout.stable, rollout.candidate)
    return [
        _Source(agent_id, address, version == rollout.candidate)
        for agent_id, address, version in found
        if address and version in both
    ]


def _counted(db: Session, rollout_id: str) -> Mapping[str, int]:
    row = db.get(RolloutEvidence, rollout_id)
    return dict(row.captures) if row is not None else {}
