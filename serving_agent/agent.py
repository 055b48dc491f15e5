"""One agent's life: bind, answer `/health`, start the model, serve, drain, end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from serving_agent import addresses
from serving_agent.contract.manifest import Manifest
from serving_agent.contract.status import Phase
from serving_agent.dataplane import DataPlane
from serving_agent.errors import StartError
from serving_agent.grpc_server import GrpcServer
from serving_agent.health import Health
from serving_agent.http_server import HttpServer
from serving_agent.inference_thread import InferenceThread
from serving_agent.metrics import Metrics
from serving_agent.model_server import ModelServer
from serving_agent.reasons import reason_of
from serving_agent.rest import RestApp
from serving_agent.startup import Startup

logger = logging.getLogger(__name__)

EXIT_OK: Final = 0
EXIT_FAILED: Final = 3
"""The model could not be started; the failure file says why."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `<manifest>.failure.json`: why this agent ended."""

    reason: str
    phase: Phase
    """The phase in which it failed."""


def record_failure(path: Path, failure: Failure) -> None:
    """Write *failure* to *path*; on a full disk the reason is lost, but the agent ends all the same."""
    try:
        path.write_bytes(msgspec.json.encode(failure))
    except OSError as error:
        logger.warning("the failure file cannot be written: %s", error)


def failure_path(manifest_path: Path) -> Path:
    """Return where an agent started with *manifest_path* writes why it failed."""
    return manifest_path.with_name(f"{manifest_path.name}.failure.json")


class Agent:
    """Everything that one manifest needs, wired together on the running loop."""

    def __init__(self, manifest: Manifest, failure_file: Path) -> None:
        self._manifest = manifest
        self._failure_file = failure_file
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self._failed = False
        self.health = Health(manifest, lambda: self._thread.busy_s)
        self._thread = InferenceThread(
            Startup(manifest, self._enter_from_thread, self._record_from_thread).run,
            self._on_ready,
            self._on_failed,
            max_queue=manifest.limits.max_queue,
            memory_bytes=manifest.limits.memory_bytes,
        )
        metrics = Metrics(manifest, lambda: self.health.in_flight)
        self._dataplane = DataPlane(manifest, self.health, self._thread, metrics)
        self._http = HttpServer(RestApp(self._dataplane))
        self._grpc = GrpcServer(self._dataplane)
        self._rest_address = addresses.parse(manifest.rest_address)
        self._grpc_address = addresses.parse(manifest.grpc_address)

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT, or until the model fails to start; return the exit code.

        Raises StartError where the addresses cannot be bound.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._ending.set)
        await self._listen()
        self._thread.start()
        await self._ending.wait()
        if not self._failed:
            await self._drain()
        await self._stop_listening()
        return EXIT_FAILED if self._failed else EXIT_OK

    async def _listen(self) -> None:
        await self._http.start(addresses.bind(self._rest_address))
        addresses.prepare(self._grpc_address)
        try:
            await self._grpc.start(self._grpc_address.grpc)
        except RuntimeError as error:
            raise StartError("cannot listen for gRPC on its address") from error
        addresses.make_private(self._grpc_address)
        logger.info("agent %s for %s is listening", self._manifest.agent_id, self._manifest.version_ref)

    async def _drain(self) -> None:
        """Answer on, for the grace and then while requests run, but no longer than the limits allow."""
        limits, was_ready = self._manifest.limits, self.health.phase == "ready"
        self.health.enter("draining")
        logger.info("draining: %d requests in flight", self.health.in_flight)
        await self._grpc.set_serving(serving=False)
        if not was_ready:
            return
        await asyncio.sleep(limits.drain_grace_s)
        try:
            async with asyncio.timeout(limits.drain_s):
                await self.health.idle()
        except TimeoutError:
            logger.warning("%d requests still ran after %g s", self.health.in_flight, limits.drain_s)
            self._thread.abandon()

    async def _stop_listening(self) -> None:
        for address in (self._rest_address, self._grpc_address):
            addresses.remove(address)
        stopping = asyncio.gather(self._grpc.stop(1.0), self._http.stop())
        try:
            async with asyncio.timeout(2.0):
                await stopping
        except TimeoutError:
            logger.warning("connections were closed with requests still running")

    def _on_ready(self, server: ModelServer) -> None:
        self._dataplane.open(server.signature())
        self.health.device = server.context.device
        self.health.enter("ready")
        timings = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in self.health.timings_s.items())
        logger.info("ready: %s on %s (%s)", self._manifest.version_ref, self.health.device, timings)
        self._tell_grpc_health = self._loop.create_task(self._grpc.set_serving(serving=self.health.is_ready))

    def _on_failed(self, error: BaseException) -> None:
        phase = self.health.phase
        reason = reason_of(error, self._manifest.limits.memory_bytes)
        self._failed = phase != "draining"
        if self._failed:
            self.health.enter("failed", reason)
            record_failure(self._failure_file, Failure(reason=reason, phase=phase))
            logger.error("failed while %s: %s", phase, reason)
        self._ending.set()

    def _enter_from_thread(self, phase: Phase) -> None:
        self._from_thread(lambda: self.health.enter(phase))

    def _record_from_thread(self, stage: str, seconds: float) -> None:
        self._from_thread(lambda: self.health.timings_s.update({stage: seconds}))

    def _from_thread(self, callback: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)
