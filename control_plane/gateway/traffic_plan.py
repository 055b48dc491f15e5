"""What the gateway is asked to do, free of any gateway's own terms. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Final, Literal


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
class Mirror:
    """Copies of requests whose answers nobody sees: to which version, and the share copied, in (0, 1]."""

    version: str
    share: float


@dataclass(frozen=True, slots=True)
class Sticky:
    """What keeps a client at one version: the header, or the cookie, that names its session."""

    kind: Literal["header", "cookie"]
    name: str


BEFORE_TRAFFIC: Final = -1
"""Step of requests that are measured before the candidate gets any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two versions that are being compared by a rollout: its requests are measured finely.

    tester_header: whether clients may choose a version by `x-signalbox-version`. The candidate is always
    reachable under its preview path. step: of the rollout, from 0: sessions count once in each.
    """

    rollout: str
    stable: str
    candidate: str
    tester_header: bool = False
    step: int = 0


@dataclass(frozen=True, slots=True)
class TrafficPlan:
    """Where one endpoint's requests go. No backend with weight > 0 means: answer 503 with a sentence."""

    endpoint: str
    backends: tuple[Backend, ...]
    timeout_s: float = 60.0
    mirror: Mirror | None = None
    sticky: Sticky | None = None
    comparison: Comparison | None = None


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
    extras: dict[str, str] = field(default_factory=dict)
    """By endpoint: `traffic_plan.extras` of the plan in force; "" where it asks for weights alone."""
    problem: str | None = None
    """Why the last change was not taken, in one sentence."""


def extras(plan: TrafficPlan) -> str:
    """What a plan asks for beside its weights, as canonical JSON; "" when that is nothing."""
    asked = {"mirror": plan.mirror, "sticky": plan.sticky, "comparison": plan.comparison}
    found = {name: asdict(value) for name, value in asked.items() if value is not None}
    return json.dumps(found, sort_keys=True) if found else ""


def also_reached(extras: str) -> frozenset[str]:
    """Versions that requests, or copies of them, can reach without having a weight."""
    asked = json.loads(extras) if extras else {}
    mirrored = {asked["mirror"]["version"]} if "mirror" in asked else set()
    chosen = {asked["comparison"][arm] for arm in ("stable", "candidate")} if "comparison" in asked else set()
    return frozenset(mirrored | chosen)


def compared_step(extras: str) -> int | None:
    """The step that requests are marked with now; None where nothing is compared."""
    asked = json.loads(extras) if extras else {}
    step: int | None = asked.get("comparison", {}).get("step")
    return step
