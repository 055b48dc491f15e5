"""One agent's life: bind, answer `/health`, start the model, serve, drain, end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from serving_agent import addresses
from serving_agent.batch import Inputs
from serving_agent.contract.manifest import Manifest
from serving_agent.contract.status import CheckStatus, Phase
from serving_agent.dataplane import DataPlane
from serving_agent.decode_thread import DecodeThread
from serving_agent.errors import StartError
from serving_agent.grpc_server import GrpcServer
from serving_agent.health import Health
from serving_agent.health_checker import HealthChecker
from serving_agent.http_server import HttpServer
from serving_agent.inference_thread import InferenceThread
from serving_agent.measurements import Measurements
from serving_agent.reasons import reason_of
from serving_agent.rest import RestApp
from serving_agent.startup import Started, Startup

logger = logging.getLogger(__name__)

LAST_WORDS_S: Final = 1.0
"""How long clients may take to read the refusals that the end of the drain leaves them with."""
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
        measurements = Measurements()
        self._thread = InferenceThread(
            manifest,
            measurements,
            Startup(manifest, self._enter_from_thread, self._record_from_thread).run,
            self._on_ready,
            self._on_failed,
        )
        self._dataplane = DataPlane(manifest, self.health, self._thread, measurements)
        self._checker: HealthChecker | None = None
        decode_thread = DecodeThread(manifest.limits.max_queue)
        self._http = HttpServer(RestApp(self._dataplane, decode_thread), manifest.limits.max_request_bytes)
        self._grpc = GrpcServer(self._dataplane, decode_thread)
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
        await self._stop_listening(0.0 if self._failed else await self._drain())
        if self._dataplane.tracer is not None:
            await asyncio.to_thread(self._dataplane.tracer.close)
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

    async def _drain(self) -> float:
        """Answer on for the grace; return for how long what was accepted may still take, in seconds."""
        limits, was_ready = self._manifest.limits, self.health.phase == "ready"
        self.health.enter("draining")
        self._http.end_connections_after_answers()
        self._dataplane.profiler.end("draining")
        if self._checker is not None:
            self._checker.stop()
        logger.info("draining: %d requests in flight", self.health.in_flight)
        self._grpc.tell_readiness()
        if not was_ready:
            return 0.0
        await asyncio.sleep(limits.drain_grace_s)
        return limits.drain_s

    async def _stop_listening(self, left_s: float) -> None:
        """Accept nothing more and return once what was accepted is answered, *left_s* later at the latest.

        What is then left is answered with a refusal, and what cannot take that in LAST_WORDS_S is cut off.
        """
        for address in (self._rest_address, self._grpc_address):
            addresses.remove(address)
        self._http.close()
        ending = asyncio.gather(self._grpc.stop(left_s + LAST_WORDS_S), self._http.wait_closed())
        if not await _is_done(ending, left_s):
            if left_s:
                logger.warning("%d requests still ran after %g s", self.health.in_flight, left_s)
            self._thread.abandon()
            if not await _is_done(ending, LAST_WORDS_S):
                logger.warning("connections were cut with requests under way")
        await self._http.abort()
        await _is_done(ending, LAST_WORDS_S)

    def _on_ready(self, started: Started) -> None:
        self._dataplane.open(started.server.signature(), shares_batches=started.shares_batches)
        self.health.device, self.health.effect = started.server.context.device, started.effect
        self.health.enter("ready")
        timings = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in self.health.timings_s.items())
        logger.info("ready: %s on %s (%s)", self._manifest.version_ref, self.health.device, timings)
        self._check_health(started.row)
        self._grpc.tell_readiness()

    def _check_health(self, row: Inputs | None) -> None:
        if row is None:
            return
        self._checker = HealthChecker(
            partial(self._dataplane.infer_plainly, row),
            self._manifest.options.check_interval_s,
            self._take_check,
        )
        self._checker.start()

    def _take_check(self, status: CheckStatus) -> None:
        if status.state != self.health.check.state:
            logger.info(
                "health check: %s%s", status.state, f" ({status.last_error})" if status.failures else ""
            )
        self.health.check = status
        self._grpc.tell_readiness()

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


async def _is_done(ending: asyncio.Future[Any], timeout_s: float) -> bool:
    """Tell whether *ending* is done, *timeout_s* from now at the latest; it goes on if not."""
    done, _ = await asyncio.wait({ending}, timeout=timeout_s)
    return bool(done)
