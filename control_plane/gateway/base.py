"""The port every gateway implements: local Envoy now, the Kubernetes Gateway API beside it later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from control_plane.gateway.traffic_plan import GatewayState, TrafficPlan


class Gateway(Protocol):
    """Applies traffic plans.

    Both `publish` calls are idempotent, confirmed by the gateway before they return, and raise
    UnavailableError (with the gateway's reason) when it does not take the change: the last good
    configuration then stays in force.
    """

    def publish_backends(self, plans: Sequence[TrafficPlan]) -> None:
        """Make exactly the backends of *plans* known (all endpoints at once); no request moves yet."""

    def publish_routes(self, plans: Sequence[TrafficPlan]) -> None:
        """Send requests by the weights of *plans*. Every backend with weight > 0 must be known already."""

    def observe(self) -> GatewayState:
        """Say what is in force. Never raises: a gateway that does not answer is `live=False`."""
