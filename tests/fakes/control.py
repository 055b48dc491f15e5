"""A controller on a real registry, with agents and gateway in memory or real, ticked by the test itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from control_plane.controller.execute import Executor
from control_plane.controller.lease import Lease
from control_plane.controller.loop import Controller
from control_plane.controller.observe import Observer
from control_plane.controller.snapshot import Limits
from control_plane.registry import session
from control_plane.registry.tables import Agent
from control_plane.services import endpoints
from control_plane.services.context import Context
from tests.fakes import registry
from tests.fakes.gateway import FakeGateway
from tests.fakes.platform import FakeAgentClient, FakePlatform

LEASE_S = 5.0


class Clock:
    """Time that moves when the test says so."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@dataclass
class Control:
    """One registry, one platform, one gateway, and as many controllers as a test starts."""

    ctx: Context
    clock: Clock = field(default_factory=Clock)
    gateway: FakeGateway = field(default_factory=FakeGateway)
    limits: Limits = field(default_factory=lambda: Limits(settle_s=0.01))

    def __post_init__(self) -> None:
        self.platform = FakePlatform(self.clock)
        self.controller = self.new_controller("first")

    def new_controller(self, holder: str) -> Controller:
        lease = Lease(self.ctx.engine, lease_s=LEASE_S, clock=self.clock, holder=holder)
        client = FakeAgentClient(self.platform)
        observer = Observer(
            self.ctx.engine,
            self.platform,
            self.gateway,
            client,  # type: ignore[arg-type]  # answers like the real one
            limits=self.limits,
            clock=self.clock,
        )
        executor = Executor(self.ctx.settings, lease, self.platform, self.gateway, clock=self.clock)
        return Controller(lease, observer, executor, tick_s=0.25, clock=self.clock)

    def run(self, ticks: int = 10, pause_s: float = 0.25) -> None:
        for _ in range(ticks):
            self.controller.tick()
            self.clock.now += pause_s

    def agents(self) -> list[Agent]:
        with session.read(self.ctx.engine) as db:
            return list(db.scalars(select(Agent).order_by(Agent.created_at, Agent.id)))

    def deploy(self, name: str, version: str, **changes: int) -> None:
        endpoints.deploy(self.ctx, name, version, actor="ana", **changes)  # type: ignore[arg-type]


def open_control(home: Path, versions: int = 1, register: Callable[..., str] = registry.register) -> Control:
    """A control on a fresh registry that holds `digits@1` … `digits@<versions>`."""
    ctx = registry.open_home(home)
    for number in range(versions):
        register(ctx, content=b"weights %d" % number)
    return Control(ctx)
