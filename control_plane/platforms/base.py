"""The port every platform implements: agents are started, found, asked to end and ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from serving_agent.contract.manifest import Manifest

TAIL_LINES = 20
"""Lines of its log that are kept of a failed agent."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where an agent listens: `unix:/path` or `host:port`."""

    rest: str
    grpc: str


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """A running agent, named once and for all by pid and creation time (UTC seconds since the epoch)."""

    agent_id: str
    pid: int
    started_at: float


@dataclass(frozen=True, slots=True)
class AgentExit:
    """How an agent ended: one sentence, and the exit code (negative: the signal) where it is known."""

    reason: str
    code: int | None


class Platform(Protocol):
    """Runs agents. Every call is idempotent, and an unknown agent id is no error."""

    def addresses(self, agent_id: str) -> Addresses:
        """Where the agent of that id listens, known before it starts."""

    def running(self) -> Mapping[str, AgentProcess]:
        """All running agents of this installation by id, also those that another process started."""

    def start(self, manifest: Manifest, examples: Mapping[str, Any] | None = None) -> AgentProcess:
        """Start the agent, or return the one that runs already. Raises UnavailableError when it cannot.

        examples: inputs of one row by tensor name, nested lists; they become the manifest's `examples` file.
        """

    def stop(self, agent_id: str) -> None:
        """Ask the agent to finish its requests and end; returns at once."""

    def kill(self, agent_id: str) -> None:
        """End the agent and all it started, by force; returns at once."""

    def exit_of(self, agent_id: str) -> AgentExit | None:
        """How the agent ended; None while it runs, and when nothing is known of it."""

    def log_tail(self, agent_id: str, lines: int = TAIL_LINES) -> tuple[str, ...]:
        """The last lines of its log, oldest first; empty when it has none."""

    def forget(self, agent_id: str) -> None:
        """Remove what an ended agent left behind: manifest, sockets and log."""

    def watch(self, on_exit: Callable[[], None]) -> None:
        """Call *on_exit* (from any thread) soon after an agent that was started or listed here has ended."""

    def tidy(self) -> None:
        """Keep logs within their bounds."""
