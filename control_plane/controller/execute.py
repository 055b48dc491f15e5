"""Carries a plan out, action by action, and stops at the first that fails: the next tick looks again.

Rows are written in fenced transactions; before anything outside the registry is touched, the lease is
checked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import singledispatchmethod
from typing import Any

from control_plane.config import Settings
from control_plane.controller import actions as act
from control_plane.controller import assignments, records
from control_plane.controller.lease import Lease
from control_plane.controller.snapshot import ProcessSeen
from control_plane.errors import ConflictError, NotFoundError, SignalboxError, UnavailableError
from control_plane.gateway.base import Gateway
from control_plane.gateway.traffic_plan import TrafficPlan
from control_plane.platforms.base import Platform
from control_plane.registry import session
from serving_agent.contract.manifest import Manifest

logger = logging.getLogger(__name__)


class Executor:
    """One method per kind of action. Not thread-safe: owned by the loop."""

    def __init__(
        self,
        settings: Settings,
        lease: Lease,
        platform: Platform,
        gateway: Gateway,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._lease = lease
        self._platform = platform
        self._gateway = gateway
        self._clock = clock

    def execute(self, plan: Iterable[act.Action]) -> None:
        """Do everything in order. Raises SignalboxError or a database error from the first that fails."""
        for action in plan:
            self._do(action)

    @singledispatchmethod
    def _do(self, action: act.Action) -> None:
        raise TypeError(f"no way to carry out {action!r}")

    @_do.register
    def _(self, action: act.RecordProcess) -> None:
        with self._lease.write() as db:
            records.record_process(db, action)

    @_do.register
    def _(self, action: act.RecordPhase) -> None:
        with self._lease.write() as db:
            records.record_phase(db, action)
        logger.info("agent %s is %s", action.agent_id, action.phase.value)

    @_do.register
    def _(self, action: act.RecordCheck) -> None:
        with self._lease.write() as db:
            records.record_check(db, action)

    @_do.register
    def _(self, action: act.RecordInTraffic) -> None:
        with self._lease.write() as db:
            records.record_in_traffic(db, action)

    @_do.register
    def _(self, action: act.FailAgent) -> None:
        tail = self._platform.log_tail(action.agent_id)
        with self._lease.write() as db:
            records.fail_agent(db, action, tail)
        logger.warning("agent %s failed: %s", action.agent_id, action.reason)

    @_do.register
    def _(self, action: act.EndAgent) -> None:
        with self._lease.write() as db:
            records.end_agent(db, action)
        logger.info("agent %s has ended", action.agent_id)

    @_do.register
    def _(self, action: act.SetServing) -> None:
        with self._lease.write() as db:
            records.set_serving(db, action)
        logger.info("endpoint %s: serving %s", action.endpoint, action.version or "nothing")

    @_do.register
    def _(self, action: act.MoveRollout) -> None:
        with self._lease.write() as db:
            records.move_rollout(db, action, self._settings.protected_aliases)
        logger.info("rollout %s: %s", action.before.id, action.message)

    @_do.register
    def _(self, action: act.QueueGates) -> None:
        with self._lease.write() as db:
            records.queue_gates(db, action)

    @_do.register
    def _(self, action: act.CreateAgent) -> None:
        with self._lease.write() as db:
            records.create_agent(db, action, self._platform.addresses(action.agent_id))
        logger.info("agent %s: created for %s", action.agent_id, action.spec.version_ref)

    @_do.register
    def _(self, action: act.StartAgent) -> None:
        self._lease.check()
        try:
            manifest, examples = self._assignment(action.agent_id)
        except (NotFoundError, ConflictError) as error:
            self._could_not_start(action.agent_id, error)
            return
        self._start(manifest, examples)

    @_do.register
    def _(self, action: act.DrainAgent) -> None:
        with self._lease.write() as db:
            records.drain_agent(db, action.agent_id)

    @_do.register
    def _(self, action: act.StopAgent) -> None:
        self._lease.check()
        self._platform.stop(action.agent_id)

    @_do.register
    def _(self, action: act.KillAgent) -> None:
        self._lease.check()
        logger.warning("agent %s: ended by force", action.agent_id)
        self._platform.kill(action.agent_id)

    @_do.register
    def _(self, action: act.PublishBackends) -> None:
        self._lease.check()
        self._gateway.publish_backends(action.plans)
        logger.info("gateway knows %s", _listed(action.plans))

    @_do.register
    def _(self, action: act.PublishRoutes) -> None:
        self._lease.check()
        self._gateway.publish_routes(action.plans)
        logger.info("requests follow %s", _weighted(action.plans))

    @_do.register
    def _(self, action: act.RemoveEndpoint) -> None:
        with self._lease.write() as db:
            removed = records.remove_endpoint(db, action)
        for agent_id in removed:
            self._platform.forget(agent_id)
        logger.info("endpoint %s is gone", action.endpoint)

    def _assignment(self, agent_id: str) -> tuple[Manifest, dict[str, Any] | None]:
        with session.read(self._lease.engine) as db:
            manifest = assignments.manifest(db, self._settings, agent_id)
            return manifest, assignments.examples(db, agent_id)

    def _start(self, manifest: Manifest, examples: dict[str, Any] | None) -> None:
        try:
            process = self._platform.start(manifest, examples)
        except UnavailableError as error:
            self._could_not_start(manifest.agent_id, error)
            return
        seen = ProcessSeen(process.pid, process.started_at)
        self._do(act.RecordProcess(manifest.agent_id, seen))

    def _could_not_start(self, agent_id: str, error: SignalboxError) -> None:
        reason = f"could not be started: {error.message}"
        self._do(act.FailAgent(agent_id, reason, None, self._clock()))


def _listed(plans: Iterable[TrafficPlan]) -> str:
    return (
        "; ".join(
            f"{plan.endpoint}: {backend.version} × {len(backend.replicas)}"
            for plan in plans
            for backend in plan.backends
        )
        or "no agents"
    )


def _weighted(plans: Iterable[TrafficPlan]) -> str:
    return (
        "; ".join(
            f"{plan.endpoint}: {backend.version} {backend.weight:.0%}"
            for plan in plans
            for backend in plan.backends
            if backend.weight > 0
        )
        or "no version"
    )
