"""The standard gRPC health service (grpc.health.v1): whether clients should come here.

Every answer is the agent's readiness of that moment, so that it tells too of a model that fails its tests or
hangs on a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

LOOK_S: Final = 1.0
"""How often a watched agent is looked at: that a model hangs is told by the passing of time alone."""


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # grpc_health has no types
    """Answers for the services it is given; lives on the I/O loop."""

    def __init__(self, services: Collection[str], is_ready: Callable[[], bool]) -> None:
        self._services = services
        self._is_ready = is_ready
        self._changed = asyncio.Event()
        self._has_ended = False

    def tell(self) -> None:
        """Have everybody who watches look at once."""
        self._changed.set()
        self._changed = asyncio.Event()

    def end(self) -> None:
        """End all watches, now and later."""
        self._has_ended = True
        self.tell()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802 - the name is the protocol's
        """Answer whether to come here; NOT_FOUND for a service that is not here."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - the name is the protocol's
        """Tell whether to come here, now and at every change; aborted with UNAVAILABLE at the agent's end."""
        told = None
        while not self._has_ended:
            changed = self._changed
            status = self._status(request.service)
            if status != told:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                told = status
            await _wait(changed)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "the agent is ending")

    def _status(self, service: str) -> int:
        statuses = health_pb2.HealthCheckResponse
        if service not in self._services:
            return int(statuses.SERVICE_UNKNOWN)
        return int(statuses.SERVING if self._is_ready() else statuses.NOT_SERVING)


async def _wait(changed: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(LOOK_S):
            await changed.wait()
    except TimeoutError:
        return
