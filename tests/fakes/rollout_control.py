"""Rollouts on a real registry and a real metrics store, with traffic as arithmetic, and a controller that can
be killed between any two of its actions and started anew at the same moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from control_plane.controller import actions as act
from control_plane.controller.analyst import Analyst
from control_plane.controller.execute import Executor
from control_plane.controller.lease import Lease
from control_plane.controller.loop import Controller
from control_plane.controller.observe import Observer
from control_plane.controller.pairing import Pairing
from control_plane.controller.snapshot import Limits
from control_plane.registry import rollouts, session
from control_plane.registry.tables import Event, Job, Rollout, RolloutEvidence
from control_plane.registry.tables import Lease as LeaseRow
from control_plane.services import rollouts as service
from control_plane.services.context import Context
from control_plane.telemetry import series
from control_plane.telemetry.local_store import LocalStore
from control_plane.telemetry.samples import Key, Sample, SampleKind, labels_of
from serving_agent.contract.metric_names import COMPARED_BUCKETS_S
from tests.fakes import registry
from tests.fakes.control import Clock
from tests.fakes.gateway import FakeGateway
from tests.fakes.platform import FakeAgentClient, FakePlatform

STEP_S = 0.5
"""Between two ticks, and between two readings of the gateway."""
NAME = "digits"
START = 1_700_000_000.0


class Killed(BaseException):
    """The controller's process is gone, in the middle of what it did."""


class MortalExecutor(Executor):
    """Dies before an action when *fate* says so."""

    fate: Callable[[], bool] = staticmethod(lambda: False)

    def execute(self, plan: Iterable[act.Action]) -> None:
        for action in plan:
            if self.fate():
                raise Killed
            super().execute([action])


@dataclass
class Arm:
    """How one version answers."""

    errors: float = 0.0
    """Share of requests that fail."""
    latency_s: float = 0.01


@dataclass
class RolloutControl:
    """One endpoint `digits` that serves digits@1 by one agent in memory, and digits@2 to be rolled out."""

    home: Path
    requests: int = 200
    """Per half second."""
    first_share: float = 0.0
    """Share of them that are the first of their session in a step."""
    arms: dict[str, Arm] = field(default_factory=lambda: {"digits@1": Arm(), "digits@2": Arm()})
    fate: Callable[[], bool] = lambda: False
    measuring: bool = True
    gates: str = "passed"

    def __post_init__(self) -> None:
        self.ctx: Context = registry.open_home(self.home)
        for number in range(2):
            registry.register(self.ctx, content=b"weights %d" % number)
        self.clock = Clock()
        self.clock.now = START
        self.platform = FakePlatform(self.clock)
        self.gateway = FakeGateway()
        self.store = LocalStore(self.ctx.settings.metrics_path)
        self.deaths = 0
        self.restart_controller()
        from control_plane.services import endpoints

        endpoints.deploy(self.ctx, NAME, "digits@1", actor="ana")
        self.run(6)

    # -- the controller --

    def restart_controller(self) -> None:
        """Another process takes over at this very moment."""
        with session.write(self.ctx.engine) as db:
            db.execute(update(LeaseRow).values(expires_at=0.0))
        self.deaths += 1
        lease = Lease(self.ctx.engine, lease_s=5.0, clock=self.clock, holder=f"controller {self.deaths}")
        observer = Observer(
            self.ctx.engine,
            self.platform,
            self.gateway,
            FakeAgentClient(self.platform),  # type: ignore[arg-type]  # answers like the real one
            limits=Limits(settle_s=0.01),
            clock=self.clock,
        )
        executor = MortalExecutor(self.ctx.settings, lease, self.platform, self.gateway, clock=self.clock)
        executor.fate = lambda: self.fate()
        analyst = Analyst(lease, self.store, Pairing(self.ctx.engine), tick_s=1.0, stale_s=30.0)
        self.controller = Controller(
            lease, observer, executor, tick_s=STEP_S, weigh=analyst.weigh, clock=self.clock
        )

    def tick(self) -> None:
        """One tick, carried through by as many controllers as it takes."""
        while True:
            try:
                self.controller.tick()
            except Killed:
                self.restart_controller()
            else:
                return

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            self.tick()
            self._finish_gates()
            self.clock.now += STEP_S
            if self.measuring:
                self._measure()

    def run_until(self, *states: str, ticks: int = 400) -> Rollout:
        for _ in range(ticks):
            self.run(1)
            if self.rollout().state in states:
                return self.rollout()
        raise AssertionError(f"never {states}: {self.rollout().state}, {self.rollout().verdict}")

    # -- the world around it --

    def start(self, **wish: Any) -> str:
        """Start a rollout as of this control's own time."""
        rollout_id = service.start(self.ctx, NAME, "digits@2", actor="ana", **wish).id
        with session.write(self.ctx.engine) as db:
            row, evidence = db.get_one(Rollout, rollout_id), db.get_one(RolloutEvidence, rollout_id)
            row.created_at = row.entered_at = self.clock.now
            evidence.cursor_ms = round(self.clock.now * 1000)
        return rollout_id

    def rollout(self) -> Rollout:
        with session.read(self.ctx.engine) as db:
            row = rollouts.latest(db, NAME)
            assert row is not None
            return row

    def evidence(self) -> RolloutEvidence:
        with session.read(self.ctx.engine) as db:
            row = db.get(RolloutEvidence, self.rollout().id)
            assert row is not None
            return row

    def history(self) -> list[tuple[str, float, str]]:
        """What the controller made of the rollout: action, time since the start, message."""
        with session.read(self.ctx.engine) as db:
            query = select(Event).where(Event.action.startswith("rollout."), Event.actor == "controller")
            query = query.order_by(Event.id)
            return [(event.action, event.at - START, event.message) for event in db.scalars(query)]

    def _finish_gates(self) -> None:
        with session.write(self.ctx.engine) as db:
            row = rollouts.latest(db, NAME)
            if row is None or row.gate_job_id is None or row.gates is not None:
                return
            row.gates = [
                {"name": "smoke", "title": "Smoke", "outcome": self.gates, "sentence": "it answered"}
            ]
            job = db.get_one(Job, row.gate_job_id)
            job.state = "succeeded"

    def _measure(self) -> None:
        """What half a second of traffic leaves in the metrics store, by the weights in force."""
        weights = self.gateway.weights.get(NAME, {})
        samples = [Sample(Key(series.GATEWAY_READINGS, (), SampleKind.COUNTER), 1.0, STEP_S)]
        for version, weight in weights.items():
            requests = round(self.requests * weight)
            samples += [*self._samples(version, requests, _BY_REQUEST), *self._tries(version, requests)]
            if self.first_share:
                samples += self._samples(version, round(requests * self.first_share), _BY_UNIT)
        self.store.write(self.clock.now, samples)

    def _samples(self, version: str, requests: int, names: tuple[str, str, str]) -> list[Sample]:
        """names: under which requests, their total time and that of the first byte are stored."""
        arm = self.arms[version]
        failed = round(requests * arm.errors)
        bucket = next(index for index, bound in enumerate(COMPARED_BUCKETS_S) if arm.latency_s <= bound)
        counts = [0] * (len(COMPARED_BUCKETS_S) + 1)
        counts[bucket] = requests
        labels = labels_of({"endpoint": NAME, "version": version})
        timed = [
            Sample(
                Key(name, labels, SampleKind.HISTOGRAM, COMPARED_BUCKETS_S),
                float(requests), STEP_S, tuple(counts),
            )
            for name in names[1:]
        ]  # fmt: skip
        return [
            _counted(names[0], requests - failed, version, "200"),
            _counted(names[0], failed, version, "500"),
            *timed,
        ]

    def _tries(self, version: str, requests: int) -> list[Sample]:
        failed = round(requests * self.arms[version].errors)
        return [
            _counted(series.GATEWAY_TRIES, requests - failed, version, series.GOOD_TRY),
            _counted(series.GATEWAY_TRIES, failed, version, series.FAILED_TRY),
        ]


_BY_REQUEST = (series.COMPARED_REQUESTS, series.COMPARED_LATENCY, series.COMPARED_FIRST_BYTE)
_BY_UNIT = (series.UNIT_REQUESTS, series.UNIT_LATENCY, series.UNIT_FIRST_BYTE)


def _counted(name: str, value: int, version: str, code: str) -> Sample:
    labels = labels_of({"endpoint": NAME, "version": version, "code": code})
    return Sample(Key(name, labels, SampleKind.COUNTER), float(value), STEP_S)
