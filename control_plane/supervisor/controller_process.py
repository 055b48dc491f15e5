"""The controller as a process: everything it needs, wired together.

`serve` is what `signalbox controller` runs, supervised or by itself.
"""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from types import FrameType
from typing import Final

from sqlalchemy import select

from control_plane.agent_client import AgentClient
from control_plane.config import Settings, prepare_home
from control_plane.controller import housekeeping
from control_plane.controller.analyst import Analyst
from control_plane.controller.execute import Executor
from control_plane.controller.lease import Lease, holder_name
from control_plane.controller.loop import Controller, Periodic
from control_plane.controller.observe import Observer
from control_plane.controller.pairing import Pairing
from control_plane.controller.snapshot import Limits
from control_plane.domain.endpoint import LIVE_PHASES
from control_plane.gateway.envoy import EnvoyGateway
from control_plane.gateway.envoy_files import gateway_files
from control_plane.platforms import catalog
from control_plane.platforms.base import Platform
from control_plane.registry import session
from control_plane.registry.tables import Agent, Endpoint
from control_plane.services import housekeeping as service_housekeeping
from control_plane.services import webhook_sender
from control_plane.services.context import Context, open_context
from control_plane.telemetry.collector import Collector, MeasuredAgent
from control_plane.telemetry.local_store import LocalStore
from control_plane.telemetry.unit_log import UnitLog

HOUSEKEEPING_S: Final = 3600.0
TIDY_LOGS_S: Final = 60.0
LEAST_START_SLOTS: Final = 4


def serve(settings: Settings) -> None:
    """Lead or stand by until SIGTERM or SIGINT. Agents and gateway go on without it."""
    prepare_home(settings)
    ctx = open_context(settings)
    platform = catalog.create("local", settings)
    client, collector = AgentClient(), _collector(ctx)
    controller = build(ctx, platform, client, collector)
    platform.watch(controller.wake)

    def end(_number: int, _frame: FrameType | None) -> None:
        controller.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    try:
        controller.run()
    finally:
        client.close()
        collector.close()
        ctx.engine.dispose()


def build(ctx: Context, platform: Platform, client: AgentClient, collector: Collector) -> Controller:
    """The controller with its observer, executor and periodic work."""
    settings = ctx.settings
    gateway = EnvoyGateway(settings)
    lease = Lease(ctx.engine, lease_s=settings.lease_s, clock=time.time, holder=holder_name())
    observer = Observer(ctx.engine, platform, gateway, client, limits=limits_of(settings), clock=time.time)
    pairing = Pairing(ctx.engine)
    analyst = Analyst(
        lease,
        LocalStore(settings.metrics_path),
        pairing,
        tick_s=settings.evidence_tick_s,
        stale_s=settings.rollout_stale_s,
    )

    def begin_anew() -> None:
        analyst.begin_anew()
        collector.begin_anew()

    return Controller(
        lease,
        observer,
        Executor(settings, lease, platform, gateway, clock=time.time),
        tick_s=settings.tick_s,
        weigh=analyst.weigh,
        begin_anew=begin_anew,
        periodic=(
            Periodic("collecting metrics", settings.collect_interval_s, collector.collect),
            Periodic("comparing copies", settings.collect_interval_s, pairing.gather),
            Periodic("sending webhooks", webhook_sender.EVERY_S, partial(webhook_sender.deliver_due, ctx)),
            Periodic("tidying logs", TIDY_LOGS_S, lambda _now: platform.tidy()),
            Periodic("housekeeping", HOUSEKEEPING_S, partial(_keep_house, ctx, platform)),
        ),
    )


def limits_of(settings: Settings) -> Limits:
    """The plan's bounds as the settings give them; as many agents load at once as there are processors."""
    return Limits(
        start_timeout_s=settings.start_timeout_s,
        verdict_stale_s=settings.rollout_stale_s,
        drain_timeout_s=settings.drain_timeout_s,
        start_slots=max(LEAST_START_SLOTS, os.cpu_count() or 1),
    )


def _keep_house(ctx: Context, platform: Platform, now: float) -> None:
    service_housekeeping.tidy(ctx, now)
    webhook_sender.tidy(ctx, now)
    housekeeping.forget_old_agents(ctx.engine, platform)


def _collector(ctx: Context) -> Collector:
    settings = ctx.settings
    store = LocalStore(settings.metrics_path, retention_s=settings.metrics_retention_h * 3600)
    gateway = EnvoyGateway(settings)
    unit_log = UnitLog(gateway_files(settings).units, gateway.reopen_logs)
    return Collector(settings, store, gateway.metrics, partial(_measured, ctx), unit_log)


def _measured(ctx: Context) -> list[MeasuredAgent]:
    """Agents with a process."""
    query = (
        select(Agent.id, Endpoint.name, Agent.spec, Agent.pid, Agent.rest_address)
        .join(Endpoint, Endpoint.id == Agent.endpoint_id)
        .where(Agent.phase.in_(LIVE_PHASES), Agent.pid.is_not(None))
    )
    with session.read(ctx.engine) as db:
        return [
            MeasuredAgent(agent_id, endpoint, spec["version_ref"], pid or 0, address or "")
            for agent_id, endpoint, spec, pid, address in db.execute(query)
        ]
