"""`memory`: the candidate's agents fit beside stable, by what they take now that they are warm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import psutil

from control_plane.gates.asking import Asking
from control_plane.gates.base import Finding, Outcome
from control_plane.gates.scene import Scene

LIMIT_SHARE: Final = 0.95
"""An agent that takes more than this share of its limit when idle has no room for requests."""
FLOOR_SHARE: Final = 0.03
"""Share of the machine's memory that must stay free."""
_MIB: Final = 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes, all of them."""

    agents: tuple[int, ...]
    """Resident memory of each started agent of the candidate."""
    wanted: int
    """Agents it is to have."""
    limit: int
    """What one agent may use; 0 for no limit."""
    available: int
    """What the machine has left, beside all that runs."""
    total: int

    @property
    def largest(self) -> int:
        """Of the agents."""
        return max(self.agents, default=0)

    @property
    def to_come(self) -> int:
        """What the agents that have not started yet will take."""
        return max(0, self.wanted - len(self.agents)) * self.largest


class MemoryFit:
    """Memory of the machine; that of a GPU is taken already when an agent is ready."""

    name = "memory"
    title = "Memory"
    always = False
    decisive = False

    def inapplicable(self, scene: Scene) -> str | None:
        """Without a process of its own there is nothing to measure."""
        if any(agent.pid is not None for agent in scene.candidate.agents):
            return None
        return "the candidate's agents have no process on this machine"

    def gather(self, scene: Scene, _asking: Asking) -> Memory:
        """Measure processes and machine."""
        sizes = (_resident(agent.pid) for agent in scene.candidate.agents if agent.pid is not None)
        machine = psutil.virtual_memory()
        return Memory(
            agents=tuple(size for size in sizes if size),
            wanted=scene.replicas,
            limit=scene.memory_limit,
            available=machine.available,
            total=machine.total,
        )

    def decide(self, evidence: Memory) -> Finding:
        """Fail when an agent has no room below its limit, or the machine none beside the agents."""
        figures = {
            "agent_bytes": evidence.largest,
            "agents": len(evidence.agents),
            "wanted": evidence.wanted,
            "limit_bytes": evidence.limit,
            "available_bytes": evidence.available,
            "machine_bytes": evidence.total,
        }
        each = f"an agent takes {_mib(evidence.largest)}"
        if evidence.limit and evidence.largest > LIMIT_SHARE * evidence.limit:
            said = f"{each} of its limit of {_mib(evidence.limit)}: no room is left for requests"
            return Finding(Outcome.FAILED, said, figures)
        left = evidence.available - evidence.to_come
        if left < FLOOR_SHARE * evidence.total:
            said = f"{each}; with {evidence.wanted} of them the machine has {_mib(max(0, left))} left"
            return Finding(Outcome.FAILED, f"{said} of {_mib(evidence.total)}", figures)
        said = f"{each}; {evidence.wanted} of them leave {_mib(left)} of {_mib(evidence.total)}"
        return Finding(Outcome.PASSED, said, figures)


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0  # gone meanwhile: its replacement is measured by its siblings


def _mib(size: int) -> str:
    return f"{size / _MIB:,.0f} MiB"


GATE: Final = MemoryFit()
