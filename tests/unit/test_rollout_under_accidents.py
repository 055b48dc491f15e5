"""Rollouts as a state machine: two operators, evidence of every kind, agents that die and flap, a gateway
that comes and goes, a controller killed after any prefix of its plan. The world raises where a request would
be lost or a candidate would get weight nobody decided."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from control_plane.controller import actions as act
from control_plane.controller.plan import plan
from control_plane.controller.snapshot import GatesOutcome, GatesSeen, Limits, VerdictSeen
from control_plane.domain.endpoint import AgentPhase
from control_plane.domain.rollout import (
    ENDED,
    IN_TRAFFIC,
    Command,
    Plan,
    RolloutState,
    Step,
    Strategy,
    VerdictKind,
    allowed,
    canary_steps,
)
from serving_agent.contract.status import CheckStatus
from tests.fakes.world import StaleError, World, spec

NAME, STABLE = "digits", "digits@1"
CANDIDATES = ("digits@2", "digits@3")
FAIR_WEATHER_TICKS = 350
"""At 1 s a tick longer than the longest backoff, drain and warm time together."""
PLANS = (
    Plan(strategy=Strategy.CANARY, steps=canary_steps((0.05, 0.5), bake_s=5.0), warm_s=20, debug_s=10),
    Plan(
        strategy=Strategy.CANARY,
        steps=(
            Step(weight=0, mirror=0.2, bake_s=5),
            Step(weight=0.5, bake_s=5, approval=True),
            Step(weight=1.0),
        ),
        warm_s=0,
        debug_s=0,
    ),
    Plan(
        strategy=Strategy.BLUE_GREEN,
        steps=(Step(weight=0.0, bake_s=0, min_requests=0), Step(weight=1.0, bake_s=5, min_requests=0)),
        auto_advance=False,
        warm_s=20,
        debug_s=10,
    ),
    Plan(strategy=Strategy.SHADOW, steps=(Step(weight=0, mirror=1.0, bake_s=5),), debug_s=10),
)


class Rollouts(RuleBasedStateMachine):
    @initialize(replicas=st.integers(1, 2))
    def begin(self, replicas: int) -> None:
        self.world = World(limits=Limits(start_timeout_s=20, drain_timeout_s=3, start_slots=4))
        self.world.want(NAME, spec(STABLE), replicas)
        self._ticks(30)
        self._number = 0

    # -- people --

    @rule(plan_=st.sampled_from(PLANS), candidate=st.sampled_from(CANDIDATES), supersede=st.booleans())
    def somebody_starts_a_rollout(self, plan_: Plan, candidate: str, supersede: bool) -> None:
        seen = self.world.rollouts.get(NAME)
        if seen is not None and seen.rollout.active and not supersede:
            return
        if self.world.endpoints[NAME].spec.version_ref == candidate:
            return
        self._number += 1
        self.world.begin(NAME, spec(candidate), plan_, f"r{self._number}")

    @precondition(lambda self: NAME in self.world.rollouts)
    @rule(command=st.sampled_from(list(Command)))
    def an_operator_clicks(self, command: Command) -> None:
        rollout = self.world.rollouts[NAME].rollout
        if not allowed(rollout, command, self.world.now):
            return
        if (
            command is Command.ROLLBACK
            and rollout.state in ENDED
            and not self._still_served(rollout.candidate)
        ):
            return
        self.world.command(NAME, command)

    @precondition(lambda self: NAME in self.world.rollouts)
    @rule(prefix=st.integers(0, 12), command=st.sampled_from([Command.HOLD, Command.ABORT, Command.ROLLBACK]))
    def an_operator_clicks_in_the_middle_of_a_tick(self, prefix: int, command: Command) -> None:
        actions = plan(self.world.snapshot())
        self._do(actions[:prefix])
        self.an_operator_clicks(command)
        self._do(actions[prefix:])

    # -- what is learned --

    @precondition(lambda self: NAME in self.world.rollouts)
    @rule(kind=st.sampled_from(list(VerdictKind)), age_s=st.sampled_from((0.0, 100.0)))
    def the_evidence_says(self, kind: VerdictKind, age_s: float) -> None:
        self.world.learn(NAME, verdict=VerdictSeen(kind, "errors", f"it is {kind}", self.world.now - age_s))

    @precondition(lambda self: NAME in self.world.rollouts)
    @rule(baked_s=st.sampled_from((0.0, 4.0, 400.0)), requests=st.sampled_from((0, 50, 500)))
    def requests_come(self, baked_s: float, requests: int) -> None:
        self.world.learn(NAME, baked_s=baked_s, requests=requests)

    @precondition(lambda self: NAME in self.world.rollouts)
    @rule(
        outcome=st.sampled_from(
            (GatesOutcome.PASSED, GatesOutcome.PASSED, GatesOutcome.FAILED, GatesOutcome.BROKEN)
        )
    )
    def the_gates_end(self, outcome: GatesOutcome) -> None:
        if self.world.rollouts[NAME].gates.outcome is GatesOutcome.RUNNING:
            self.world.learn(NAME, gates=GatesSeen(outcome, "they said no", "golden-set"))

    @precondition(lambda self: NAME in self.world.rollouts)
    @rule(frozen=st.sampled_from((None, None, "frozen until Monday")))
    def a_window_opens_or_closes(self, frozen: str | None) -> None:
        self.world.learn(NAME, frozen=frozen)

    # -- the controller --

    @rule(prefix=st.integers(0, 14), times=st.sampled_from((1, 1, 20)))
    def controller_is_killed_after_a_prefix(self, prefix: int, times: int) -> None:
        for _ in range(times):
            self._do(plan(self.world.snapshot())[:prefix])
            self.world.restart_controller()
            self.world.pass_time(0.05)

    @rule(times=st.integers(1, 8), seconds=st.sampled_from((0.05, 0.25, 1.0)))
    def ticks(self, times: int, seconds: float) -> None:
        self._ticks(times, seconds)

    # -- accidents --

    @rule(seconds=st.sampled_from((0.2, 5.0, 70.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data(), code=st.sampled_from((-9, 3)))
    def an_agent_dies(self, data: st.DataObject, code: int) -> None:
        self.world.end(data.draw(st.sampled_from(sorted(self.world.processes))), code)

    @precondition(lambda self: self.world.processes)
    @rule(data=st.data(), silent=st.booleans(), busy_s=st.sampled_from((0.0, 0.0, 60.0)))
    def an_agent_flaps(self, data: st.DataObject, silent: bool, busy_s: float) -> None:
        process = self.world.processes[data.draw(st.sampled_from(sorted(self.world.processes)))]
        process.silent, process.busy_s = silent, busy_s

    @rule(version=st.sampled_from((STABLE, *CANDIDATES)), doomed=st.booleans())
    def a_version_breaks_or_is_mended(self, version: str, doomed: bool) -> None:
        (self.world.doomed.add if doomed else self.world.doomed.discard)(version)

    @rule(live=st.booleans())
    def the_gateway_comes_and_goes(self, live: bool) -> None:
        self.world.gateway.live = live

    # -- what must always hold --

    @invariant()
    def every_transition_is_one_the_evidence_allows(self) -> None:
        for move in getattr(self, "world", World()).moves:
            assert move.after.revision > move.before.revision
            if move.after.state in IN_TRAFFIC and move.before.state in IN_TRAFFIC:
                assert move.after.step_index - move.before.step_index in (0, 1), "a step was skipped"
            if move.after.weight > move.before.weight:
                assert not move.before.holds, "went forward while held"
            if move.before.state is RolloutState.ROLLING_BACK:
                assert move.after.state in ENDED

    @invariant()
    def what_is_over_stays_over(self) -> None:
        moves = getattr(self, "world", World()).moves
        ended_at: dict[str, int] = {}
        for index, move in enumerate(moves):
            if move.before.state in ENDED:
                assert move.action == "rollout.closed"
            if move.after.state in ENDED:
                ended_at[move.after.id] = index

    @invariant()
    def promotion_reloads_nothing(self) -> None:
        world = getattr(self, "world", None)
        if world is None:
            return
        for before, after in pairwise(world.moves):
            assert before.before.id != after.before.id or before.after.revision <= after.before.revision

    def teardown(self) -> None:
        """Fair weather: whatever stands goes to its end, and the world comes to rest."""
        world = self.world
        world.gateway.live = True
        world.doomed.clear()
        for process in world.processes.values():
            process.silent, process.busy_s, process.check = False, 0.0, CheckStatus(state="healthy")
        for _ in range(FAIR_WEATHER_TICKS):
            self._fair_tick()
        assert plan(world.snapshot()) == (), "the plan never comes to rest"
        served = world.endpoints[NAME].spec.version_ref
        assert world.gateway.weights[NAME] == {served: 1.0}
        assert len(world.processes) == world.endpoints[NAME].replicas
        assert all(
            row.spec.version_ref == served for row in world.rows.values() if row.phase is AgentPhase.READY
        )
        seen = world.rollouts.get(NAME)
        assert seen is None or (seen.rollout.state in ENDED and seen.rollout.warm_until is None)

    def _fair_tick(self) -> None:
        world = self.world
        seen = world.rollouts.get(NAME)
        if seen is not None and seen.rollout.active:
            if seen.gates.outcome is GatesOutcome.RUNNING:
                world.learn(NAME, gates=GatesSeen(GatesOutcome.PASSED))
            passed = VerdictSeen(VerdictKind.PASS, "all-safe", "safe", world.now)
            world.learn(NAME, baked_s=1.0, requests=50, frozen=None, verdict=passed)
            for command in (Command.RESUME, Command.APPROVE):
                if allowed(world.rollouts[NAME].rollout, command, world.now):
                    world.command(NAME, command)
        self._ticks(1, 1.0)

    def _ticks(self, times: int, seconds: float = 0.25) -> None:
        for _ in range(times):
            self._do(plan(self.world.snapshot()))
            self.world.pass_time(seconds)

    def _do(self, actions: Iterable[act.Action]) -> None:
        """Carry out a plan as the executor does: the first refusal ends the tick."""
        try:
            for action in actions:
                self.world.do(action)
        except StaleError:
            pass

    def _still_served(self, version: str) -> bool:
        return self.world.endpoints[NAME].spec.version_ref == version


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestRollouts = pytest.mark.timeout(300)(TestRollouts)
