"""What the gateway is asked to do, free of any gateway's own terms. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replica:
    """One agent that can answer: its REST and gRPC addresses are `unix:/path` or `host:port`."""

    agent_id: str
    rest_address: str
    grpc_address: str


@dataclass(frozen=True, slots=True)
class Backend:
    """All replicas of one version of an endpoint.

    version: `model@N`; weight: share of requests in [0, 1] (0: kept warm, gets none).
    """

    version: str
    replicas: tuple[Replica, ...]
    weight: float


@dataclass(frozen=True, slots=True)
class TrafficPlan:
    """Where one endpoint's requests go. No backend with weight > 0 means: answer 503 with a sentence."""

    endpoint: str
    backends: tuple[Backend, ...]
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class BackendState:
    """What the gateway itself says of one backend of one endpoint."""

    agents: frozenset[str]
    """Agents it knows as members (confirmed, not merely written)."""
    healthy: int
    """Members that pass its health checks, over the worse of REST and gRPC."""
    active_requests: int
    """Requests it has sent there and not yet seen answered, REST and gRPC together."""


@dataclass(frozen=True, slots=True)
class GatewayState:
    """One observation of the gateway. `backends` and `weights` hold only confirmed configuration."""

    live: bool
    backends: dict[tuple[str, str], BackendState]
    """By (endpoint, version)."""
    weights: dict[str, dict[str, float]]
    """By endpoint, then version: the weights requests follow now; an endpoint with no weights answers 503."""
    problem: str | None = None
    """Why the last change was not taken, in one sentence."""
