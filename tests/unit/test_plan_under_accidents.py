"""The plan as a state machine: operators change their minds, agents die, replies are lost, the controller is
killed after any prefix of a plan. The world itself raises when a step would lose a request."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from control_plane.controller.plan import plan
from control_plane.controller.snapshot import Limits
from control_plane.domain.endpoint import LIVE_PHASES, AgentPhase
from serving_agent.contract.status import CheckStatus
from tests.fakes.world import World, spec

ENDPOINTS = ("digits", "letters")
VERSIONS = ("digits@1", "digits@2", "digits@3")
FAIR_WEATHER_TICKS = 700
"""At 0.25 s a tick longer than the longest backoff and drain together."""


class Accidents(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.world = World(limits=Limits(start_timeout_s=20, drain_timeout_s=3, start_slots=4))

    @rule(
        name=st.sampled_from(ENDPOINTS),
        version=st.sampled_from(VERSIONS),
        replicas=st.integers(1, 3),
        restart=st.integers(0, 1),
        goal=st.sampled_from(("running", "running", "running", "stopped", "deleted")),
    )
    def operator_changes_the_goal(
        self, name: str, version: str, replicas: int, restart: int, goal: str
    ) -> None:
        present = self.world.endpoints.get(name)
        if present is None and goal == "deleted":
            return
        if present is not None and present.goal == "deleted":
            return  # services refuse to change what is being deleted
        self.world.want(name, spec(version, restart=restart), replicas, goal)

    @rule(prefix=st.integers(0, 12))
    def tick_cut_short(self, prefix: int) -> None:
        for action in plan(self.world.snapshot())[:prefix]:
            self.world.do(action)
        self.world.restart_controller()

    @rule(times=st.integers(1, 6), seconds=st.sampled_from((0.05, 0.25, 1.0)))
    def ticks(self, times: int, seconds: float) -> None:
        for _ in range(times):
            for action in plan(self.world.snapshot()):
                self.world.do(action)
            self.world.pass_time(seconds)

    @rule(seconds=st.sampled_from((0.2, 5.0, 70.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data(), code=st.sampled_from((-9, 3, None)))
    def an_agent_dies(self, data: st.DataObject, code: int | None) -> None:
        self.world.end(data.draw(st.sampled_from(sorted(self.world.processes))), code)

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data(), silent=st.booleans())
    def an_agent_flaps(self, data: st.DataObject, silent: bool) -> None:
        self.world.processes[data.draw(st.sampled_from(sorted(self.world.processes)))].silent = silent

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data(), failures=st.integers(0, 4))
    def an_agent_tests_itself(self, data: st.DataObject, failures: int) -> None:
        process = self.world.processes[data.draw(st.sampled_from(sorted(self.world.processes)))]
        process.check = CheckStatus(
            state="unhealthy" if failures else "healthy", failures=failures, last_error=f"error {failures}"
        )

    @rule(data=st.data())
    def a_request_begins(self, data: st.DataObject) -> None:
        ready = [
            agent_id
            for (endpoint, version), agents in self.world.gateway.backends.items()
            for agent_id in agents
            if version in self.world.gateway.weights.get(endpoint, {}) and agent_id in self.world.processes
        ]
        if ready:
            self.world.processes[data.draw(st.sampled_from(sorted(ready)))].in_flight += 1

    @rule()
    def all_requests_end(self) -> None:
        for process in self.world.processes.values():
            process.in_flight = 0

    @rule(version=st.sampled_from(VERSIONS), doomed=st.booleans())
    def a_version_breaks_or_is_mended(self, version: str, doomed: bool) -> None:
        (self.world.doomed.add if doomed else self.world.doomed.discard)(version)

    @rule(live=st.booleans())
    def the_gateway_comes_and_goes(self, live: bool) -> None:
        self.world.gateway.live = live

    @rule(name=st.sampled_from(ENDPOINTS), version=st.sampled_from(VERSIONS), healthy=st.integers(0, 3))
    def health_checks_flap(self, name: str, version: str, healthy: int) -> None:
        self.world.gateway.set_healthy(name, version, healthy)

    @invariant()
    def nothing_runs_twice(self) -> None:
        running = [process.pid for process in self.world.processes.values()]
        assert len(running) == len(set(running))

    @invariant()
    def what_failed_is_not_started_again(self) -> None:
        assert all(
            row.phase not in {AgentPhase.STOPPED} or agent_id not in self.world.processes
            for agent_id, row in self.world.rows.items()
        )

    def teardown(self) -> None:
        """Fair weather: everything works again, and the goal must be reached."""
        world = self.world
        world.gateway.live = True
        world.gateway._healthy.clear()
        world.doomed.clear()
        for process in world.processes.values():
            process.silent, process.in_flight, process.check = False, 0, CheckStatus(state="healthy")
        for _ in range(FAIR_WEATHER_TICKS):
            actions = plan(world.snapshot())
            for action in actions:
                world.do(action)
            world.pass_time(0.25)
            for process in world.processes.values():
                process.in_flight = 0
        assert plan(world.snapshot()) == (), "the plan never comes to rest"
        self._everything_is_as_wanted()

    def _everything_is_as_wanted(self) -> None:
        world = self.world
        wanted = 0
        for name, endpoint in world.endpoints.items():
            assert endpoint.goal != "deleted"
            running = endpoint.goal == "running"
            version = endpoint.spec.version_ref
            assert world.gateway.weights[name] == ({version: 1.0} if running else {})
            live = [
                row for row in world.rows.values() if row.endpoint_id == name and row.phase in LIVE_PHASES
            ]
            assert len(live) == (endpoint.replicas if running else 0)
            assert all(row.spec == endpoint.spec and row.phase is AgentPhase.READY for row in live)
            wanted += len(live)
        assert len(world.processes) == wanted


TestAccidents = Accidents.TestCase
TestAccidents.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestAccidents = pytest.mark.timeout(300)(TestAccidents)
