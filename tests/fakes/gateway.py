"""A gateway in memory that passes the same contract suite as Envoy."""

from __future__ import annotations

from collections.abc import Sequence

from control_plane.errors import UnavailableError
from control_plane.gateway import envoy_routes
from control_plane.gateway.traffic_plan import (
    BackendState,
    GatewayState,
    TrafficPlan,
    also_reached,
    extras,
)

Key = tuple[str, str]


class FakeGateway:
    """`base.Gateway` without a process.

    live: False makes it silent, as when Envoy is down. Every member is healthy until `set_healthy` says less.
    """

    def __init__(self) -> None:
        self.live = True
        self.backends: dict[Key, frozenset[str]] = {}
        self.weights: dict[str, dict[str, float]] = {}
        self.extras: dict[str, str] = {}
        self.problem: str | None = None
        self.failing: set[str] = set()
        """Agents that do not pass health checks."""
        self._healthy: dict[Key, int] = {}
        self._active: dict[Key, int] = {}

    def set_healthy(self, endpoint: str, version: str, n: int) -> None:
        """Let at most *n* members of a backend pass their health checks."""
        self._healthy[endpoint, version] = n

    def set_active(self, endpoint: str, version: str, n: int) -> None:
        """Let *n* requests be unanswered at a backend."""
        self._active[endpoint, version] = n

    def publish_backends(self, plans: Sequence[TrafficPlan]) -> None:
        new = {
            (plan.endpoint, backend.version): frozenset(replica.agent_id for replica in backend.replicas)
            for plan in plans
            for backend in plan.backends
        }
        routed = _reached(self.weights, self.extras)
        self._refuse(routed - new.keys(), "requests are still routed to {}; publish routes first")
        self.backends = new

    def publish_routes(self, plans: Sequence[TrafficPlan]) -> None:
        new = envoy_routes.weights(plans)
        asked = {plan.endpoint: extras(plan) for plan in plans}
        unknown = _reached(new, asked) - self.backends.keys()
        self._refuse(unknown, "the gateway does not know {}; publish backends first")
        self.weights, self.extras = new, asked

    def observe(self) -> GatewayState:
        if not self.live:
            return GatewayState(live=False, backends={}, weights={}, problem="the gateway does not answer")
        states = {key: self._state(key, agents) for key, agents in self.backends.items()}
        return GatewayState(
            live=True, backends=states, weights=self.weights, extras=self.extras, problem=self.problem
        )

    def _state(self, key: Key, agents: frozenset[str]) -> BackendState:
        healthy = min(len(agents - self.failing), self._healthy.get(key, len(agents)))
        return BackendState(agents=agents, healthy=healthy, active_requests=self._active.get(key, 0))

    def _refuse(self, wrong: set[Key], sentence: str) -> None:
        if not self.live:
            raise UnavailableError("the gateway does not answer")
        self.problem = sentence.format(sorted(wrong)) if wrong else None
        if self.problem:
            raise UnavailableError(self.problem)


def _reached(weights: dict[str, dict[str, float]], asked: dict[str, str]) -> set[Key]:
    """Backends that requests or copies of them go to."""
    weighted = {(endpoint, version) for endpoint, shares in weights.items() for version in shares}
    return weighted | {
        (endpoint, version) for endpoint, text in asked.items() for version in also_reached(text)
    }
