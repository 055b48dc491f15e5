from __future__ import annotations

from dataclasses import replace

import pytest

from control_plane.controller import actions as act
from control_plane.controller.plan import plan
from control_plane.controller.snapshot import GatesOutcome, GatesSeen, VerdictSeen
from control_plane.domain.endpoint import LIVE_PHASES
from control_plane.domain.rollout import (
    Command,
    Plan,
    RolloutState,
    Step,
    Strategy,
    VerdictKind,
    canary_steps,
    default_steps,
)
from control_plane.domain.rollout_policy import RolloutPolicy, StickyPolicy
from tests.fakes.world import StaleError, World, spec

TICK_S = 0.25
STABLE, CANDIDATE = "digits@1", "digits@2"
LADDER = Plan(strategy=Strategy.CANARY, steps=canary_steps((0.05, 0.5), bake_s=60.0))


def tick(world: World) -> None:
    try:
        for action in plan(world.snapshot()):
            world.do(action)
    except StaleError:
        pass
    world.pass_time(TICK_S)


def run(world: World, ticks: int = 30) -> None:
    for _ in range(ticks):
        tick(world)


def ready_world(replicas: int = 1) -> World:
    world = World()
    world.want("digits", spec(STABLE), replicas)
    run(world)
    return world


def state(world: World) -> RolloutState:
    return world.rollouts["digits"].rollout.state


def weights(world: World) -> dict[str, float]:
    return world.gateway.weights.get("digits", {})


def says(world: World, kind: VerdictKind, code: str = "errors") -> None:
    world.learn("digits", verdict=VerdictSeen(kind, code, f"{code} say {kind}", world.now))


def passes(world: World) -> None:
    """The step's time has been observed, its requests have come, and the evidence is good."""
    world.learn("digits", baked_s=1000.0, requests=1000)
    says(world, VerdictKind.PASS, "all-safe")


def started(plan_: Plan = LADDER, replicas: int = 1) -> World:
    """A rollout whose gates are passed, at its first step."""
    world = ready_world(replicas)
    world.begin("digits", spec(CANDIDATE), plan_)
    run(world)
    assert state(world) is RolloutState.PREFLIGHT
    world.learn("digits", gates=GatesSeen(GatesOutcome.PASSED))
    run(world, 6)
    return world


def agents_of(world: World, version: str) -> list[str]:
    return sorted(
        row.id for row in world.rows.values() if row.version == version and row.phase in LIVE_PHASES
    )


def test_a_candidate_starts_beside_stable_and_gets_nothing_before_its_gates() -> None:
    world = ready_world(replicas=2)
    world.begin("digits", spec(CANDIDATE), LADDER)
    run(world, 40)
    assert state(world) is RolloutState.PREFLIGHT
    assert world.rollouts["digits"].gates.outcome is GatesOutcome.RUNNING
    assert len(agents_of(world, CANDIDATE)) == 2
    assert weights(world) == {STABLE: 1.0}


def test_step_by_step_to_stable_with_the_same_processes() -> None:
    world = started(replicas=2)
    candidates = agents_of(world, CANDIDATE)
    seen = []
    for _ in range(3):
        run(world, 4)
        seen.append(weights(world).get(CANDIDATE, 0.0))
        passes(world)
        run(world, 4)
    assert seen == pytest.approx([0.05, 0.5, 1.0])
    assert state(world) is RolloutState.COMPLETED
    assert world.endpoints["digits"].spec.version_ref == CANDIDATE
    assert world.endpoints["digits"].serving == CANDIDATE
    assert agents_of(world, CANDIDATE) == candidates, "promotion must not reload"
    assert len(agents_of(world, STABLE)) == 2, "the old version is kept warm"
    assert weights(world) == {CANDIDATE: 1.0}


def test_no_request_goes_back_while_the_candidate_becomes_stable() -> None:
    world = started(Plan(strategy=Strategy.CANARY, steps=(Step(weight=1.0, bake_s=5, min_requests=0),)))
    assert weights(world) == {CANDIDATE: 1.0}
    passes(world)
    for _ in range(8):
        tick(world)
        assert weights(world) == {CANDIDATE: 1.0}
    assert state(world) is RolloutState.COMPLETED


def test_it_is_starting_until_every_replica_is_ready_and_in_place() -> None:
    world = ready_world(replicas=2)
    world.begin("digits", spec(CANDIDATE), LADDER)
    run(world, 3)
    assert state(world) is RolloutState.STARTING
    world.command("digits", Command.HOLD)
    run(world, 30)
    assert state(world) is RolloutState.STARTING
    world.command("digits", Command.RESUME)
    run(world, 2)
    assert state(world) is RolloutState.PREFLIGHT


def test_a_weight_counts_only_once_the_gateway_confirms_it() -> None:
    world = ready_world()
    world.begin("digits", spec(CANDIDATE), LADDER)
    run(world)
    world.learn("digits", gates=GatesSeen(GatesOutcome.PASSED))
    for action in plan(world.snapshot()):
        if isinstance(action, act.MoveRollout):
            world.do(action)
    world.gateway.live = False
    run(world, 8)
    assert state(world) is RolloutState.SHIFTING
    world.gateway.live = True
    run(world, 4)
    assert state(world) is RolloutState.BAKING


def test_a_weight_that_is_never_confirmed_has_a_deadline() -> None:
    world = ready_world()
    world.begin("digits", spec(CANDIDATE), LADDER)
    run(world)
    world.learn("digits", gates=GatesSeen(GatesOutcome.PASSED))
    for action in plan(world.snapshot()):
        if isinstance(action, act.MoveRollout):
            world.do(action)
    world.gateway.set_healthy("digits", CANDIDATE, 0)
    run(world, 4)
    assert state(world) is RolloutState.SHIFTING
    world.pass_time(LADDER.shift_deadline_s + 1)
    run(world, 4)
    assert world.rollouts["digits"].rollout.reason_code == "shift-deadline"


def test_a_rollback_is_done_only_once_the_gateway_has_moved() -> None:
    world = started()
    world.gateway.live = False
    world.command("digits", Command.ROLLBACK)
    run(world, 8)
    assert state(world) is RolloutState.ROLLING_BACK
    world.gateway.live = True
    run(world, 3)
    assert state(world) is RolloutState.ROLLED_BACK


def test_what_was_stable_stays_all_through_its_window() -> None:
    world = started(Plan(strategy=Strategy.CANARY, steps=(Step(weight=1.0, bake_s=0, min_requests=0),)))
    passes(world)
    run(world, 200)
    assert state(world) is RolloutState.COMPLETED
    assert agents_of(world, STABLE)


def test_what_was_stable_goes_when_its_window_closes() -> None:
    world = started(
        Plan(strategy=Strategy.CANARY, steps=(Step(weight=1.0, bake_s=0, min_requests=0),), warm_s=30)
    )
    passes(world)
    run(world, 6)
    assert state(world) is RolloutState.COMPLETED
    world.pass_time(31)
    run(world, 40)
    assert agents_of(world, STABLE) == []
    assert weights(world) == {CANDIDATE: 1.0}
    assert plan(world.snapshot()) == ()


def test_a_rollback_inside_the_window_needs_one_tick_and_no_new_process() -> None:
    world = started(Plan(strategy=Strategy.CANARY, steps=(Step(weight=1.0, bake_s=0, min_requests=0),)))
    passes(world)
    run(world, 6)
    stable = agents_of(world, STABLE)
    world.command("digits", Command.ROLLBACK, "complaints")
    tick(world)
    assert weights(world) == {STABLE: 1.0}
    run(world, 4)
    assert state(world) is RolloutState.ROLLED_BACK
    assert agents_of(world, STABLE) == stable
    assert world.endpoints["digits"].serving == STABLE


@pytest.mark.parametrize(
    ("kind", "ready_for_more"),
    [(VerdictKind.WAIT, False), (VerdictKind.NO_DATA, False), (VerdictKind.PASS, True)],
)
def test_only_proof_goes_forward(kind: VerdictKind, ready_for_more: bool) -> None:
    world = started()
    world.learn("digits", baked_s=1000.0, requests=1000)
    says(world, kind)
    run(world, 6)
    assert (weights(world)[CANDIDATE] > 0.05) == ready_for_more


@pytest.mark.parametrize(("baked_s", "requests"), [(59.9, 1000), (1000.0, 99)])
def test_time_and_requests_are_both_needed(baked_s: float, requests: int) -> None:
    world = started()
    world.learn("digits", baked_s=baked_s, requests=requests)
    says(world, VerdictKind.PASS)
    run(world, 6)
    assert state(world) is RolloutState.BAKING
    assert weights(world)[CANDIDATE] == pytest.approx(0.05)


def test_an_old_verdict_proves_nothing() -> None:
    world = started()
    passes(world)
    world.now += world.limits.verdict_stale_s + 1
    run(world, 6)
    assert weights(world)[CANDIDATE] == pytest.approx(0.05)


def test_proof_of_the_contrary_goes_back_in_one_tick_and_names_itself() -> None:
    world = started()
    says(world, VerdictKind.FAIL, "latency")
    tick(world)
    assert weights(world) == {STABLE: 1.0}
    run(world, 4)
    rollout = world.rollouts["digits"].rollout
    assert (rollout.state, rollout.reason_code) == (RolloutState.ROLLED_BACK, "latency")
    assert agents_of(world, CANDIDATE), "kept for the debugger"
    world.pass_time(rollout.plan.debug_s + 1)
    run(world, 40)
    assert agents_of(world, CANDIDATE) == []
    assert plan(world.snapshot()) == ()


def test_the_decision_to_go_back_is_written_before_the_routes_move() -> None:
    world = started()
    says(world, VerdictKind.FAIL)
    kinds = [type(action) for action in plan(world.snapshot())]
    assert kinds.index(act.MoveRollout) < kinds.index(act.PublishRoutes)


def test_a_hold_stops_what_goes_forward_but_not_what_goes_back() -> None:
    world = started()
    world.command("digits", Command.HOLD)
    passes(world)
    run(world, 6)
    assert weights(world)[CANDIDATE] == pytest.approx(0.05)
    says(world, VerdictKind.FAIL)
    run(world, 3)
    assert weights(world) == {STABLE: 1.0}


def test_a_freeze_stops_what_goes_forward_but_not_what_goes_back() -> None:
    world = started()
    passes(world)
    world.learn("digits", frozen="frozen until Monday")
    run(world, 6)
    assert weights(world)[CANDIDATE] == pytest.approx(0.05)
    world.command("digits", Command.ROLLBACK)
    run(world, 3)
    assert weights(world) == {STABLE: 1.0}


@pytest.mark.parametrize("code", [-9, 3])
def test_a_candidate_that_crashes_in_traffic_is_rolled_back(code: int) -> None:
    world = started(replicas=2)
    world.end(agents_of(world, CANDIDATE)[0], code, "out of memory")
    run(world, 8)
    rollout = world.rollouts["digits"].rollout
    assert (rollout.state, rollout.reason_code) == (RolloutState.ROLLED_BACK, "agent-failed")
    assert "out of memory" in (rollout.reason or "")
    assert weights(world) == {STABLE: 1.0}


def test_a_candidate_that_is_not_ready_any_more_is_rolled_back() -> None:
    world = started()
    world.processes[agents_of(world, CANDIDATE)[0]].phase = "warming"
    run(world, 8)
    assert world.rollouts["digits"].rollout.reason_code == "not-ready"


def test_a_candidate_that_hangs_is_rolled_back_unless_stable_is_as_busy() -> None:
    world = started()
    candidate, stable = agents_of(world, CANDIDATE)[0], agents_of(world, STABLE)[0]
    world.processes[candidate].busy_s = world.processes[stable].busy_s = 60.0
    run(world, 4)
    assert state(world) is RolloutState.BAKING
    world.processes[stable].busy_s = 0.1
    run(world, 8)
    assert world.rollouts["digits"].rollout.reason_code == "hangs"


def test_a_candidate_that_does_not_start_fails_without_ever_having_traffic() -> None:
    world = ready_world()
    world.doomed.add(CANDIDATE)
    world.begin("digits", spec(CANDIDATE), LADDER)
    for _ in range(400):
        tick(world)
        assert weights(world) == {STABLE: 1.0}
    rollout = world.rollouts["digits"].rollout
    assert (rollout.state, rollout.reason_code) == (RolloutState.FAILED, "start-failed")
    assert "the model is broken" in (rollout.reason or "")
    assert agents_of(world, CANDIDATE) == []


def test_gates_that_say_no_end_it_by_their_name() -> None:
    world = ready_world()
    world.begin("digits", spec(CANDIDATE), LADDER)
    run(world)
    world.learn(
        "digits", gates=GatesSeen(GatesOutcome.FAILED, "gate Golden set: 4 of 100 lost", "golden-set")
    )
    run(world, 10)
    rollout = world.rollouts["digits"].rollout
    assert (rollout.state, rollout.reason_code) == (RolloutState.FAILED, "golden-set")
    assert weights(world) == {STABLE: 1.0}


def test_slow_starts_have_a_deadline() -> None:
    world = ready_world()
    world.begin("digits", spec(CANDIDATE), replace(LADDER, start_deadline_s=60.0))
    run(world)
    assert state(world) is RolloutState.PREFLIGHT
    world.pass_time(61)
    run(world, 4)
    assert world.rollouts["digits"].rollout.reason_code == "start-deadline"


def test_stable_down_lets_the_candidate_carry_all_and_gives_it_back() -> None:
    world = started()
    world.end(agents_of(world, STABLE)[0], 3)
    tick(world)
    assert weights(world) == {CANDIDATE: 1.0}
    assert state(world) is RolloutState.BAKING
    run(world, 60)
    assert weights(world) == pytest.approx({STABLE: 0.95, CANDIDATE: 0.05})


def test_a_person_lets_it_go_on_where_the_step_asks_for_it() -> None:
    steps = tuple(replace(step, approval=True) for step in LADDER.steps)
    world = started(replace(LADDER, steps=steps))
    passes(world)
    run(world, 4)
    assert state(world) is RolloutState.AWAITING_APPROVAL
    assert weights(world)[CANDIDATE] == pytest.approx(0.05)
    world.command("digits", Command.APPROVE)
    run(world, 4)
    assert weights(world)[CANDIDATE] == pytest.approx(0.5)


def test_blue_green_switches_all_at_once_and_may_wait_for_a_person() -> None:
    plan_ = Plan(strategy=Strategy.BLUE_GREEN, steps=default_steps(Strategy.BLUE_GREEN), auto_advance=False)
    world = started(plan_)
    assert state(world) is RolloutState.AWAITING_APPROVAL
    assert weights(world) == {STABLE: 1.0}
    assert '"comparison"' in world.gateway.extras["digits"], "the preview is there"
    world.command("digits", Command.APPROVE)
    tick(world)
    assert weights(world) == {CANDIDATE: 1.0}
    run(world, 4)
    assert state(world) is RolloutState.FINAL


def test_shadow_sends_copies_and_promotes_nothing() -> None:
    world = started(Plan(strategy=Strategy.SHADOW, steps=default_steps(Strategy.SHADOW)))
    assert state(world) is RolloutState.BAKING
    assert weights(world) == {STABLE: 1.0}
    assert '"mirror"' in world.gateway.extras["digits"]
    passes(world)
    run(world, 40)
    assert state(world) is RolloutState.COMPLETED
    assert world.endpoints["digits"].spec.version_ref == STABLE
    assert agents_of(world, CANDIDATE) == []
    assert not world.gateway.extras.get("digits")


def test_sessions_and_testers_are_the_endpoints_policy() -> None:
    world = ready_world()
    policy = RolloutPolicy(tester_header=True, sticky=StickyPolicy(kind="header", name="x-session"))
    world.endpoints["digits"] = replace(world.endpoints["digits"], policy=policy)
    world.begin("digits", spec(CANDIDATE), LADDER)
    run(world)
    assert '"x-session"' in world.gateway.extras["digits"]
    assert '"tester_header": true' in world.gateway.extras["digits"]


def test_promote_full_before_it_is_ready_goes_to_the_last_step_and_abort_still_wins() -> None:
    world = ready_world()
    world.begin("digits", spec(CANDIDATE), LADDER)
    world.command("digits", Command.PROMOTE_FULL)
    run(world)
    world.learn("digits", gates=GatesSeen(GatesOutcome.PASSED))
    run(world, 6)
    assert weights(world) == {CANDIDATE: 1.0}
    world.command("digits", Command.ABORT)
    run(world, 6)
    assert state(world) is RolloutState.ABORTED
    assert weights(world) == {STABLE: 1.0}


def test_a_stopped_endpoint_ends_its_rollout() -> None:
    world = started()
    endpoint = world.endpoints["digits"]
    world.want("digits", endpoint.spec, goal="stopped")
    run(world, 40)
    assert state(world) is RolloutState.ABORTED
    assert world.processes == {}


def test_the_gateways_silence_stops_everything_and_rolls_nothing_back() -> None:
    world = started()
    passes(world)
    world.gateway.live = False
    world.learn("digits", verdict=VerdictSeen(VerdictKind.NO_DATA, "no-data", "nothing measured", world.now))
    run(world, 400)
    assert state(world) is RolloutState.BAKING
    world.gateway.live = True
    run(world, 4)
    assert weights(world)[CANDIDATE] == pytest.approx(0.05)


def test_a_superseding_rollout_takes_the_first_ones_weight_away() -> None:
    world = started()
    world.begin("digits", spec("digits@3"), LADDER, rollout_id="r2")
    tick(world)
    assert weights(world) == {STABLE: 1.0}
    run(world, 60)
    assert agents_of(world, CANDIDATE) == []
    assert agents_of(world, "digits@3")


def test_scaling_while_it_runs_scales_both() -> None:
    world = started()
    world.endpoints["digits"] = replace(world.endpoints["digits"], replicas=2)
    run(world, 40)
    assert len(agents_of(world, STABLE)) == len(agents_of(world, CANDIDATE)) == 2
    assert weights(world) == pytest.approx({STABLE: 0.95, CANDIDATE: 0.05})


def preflighted(plan_: Plan = LADDER, replicas: int = 1) -> World:
    """A rollout whose gates are running."""
    world = ready_world(replicas)
    world.begin("digits", spec(CANDIDATE), plan_)
    run(world)
    assert state(world) is RolloutState.PREFLIGHT
    return world


@pytest.mark.parametrize("why", ["hold", "freeze", "gates"])
def test_what_waits_for_a_person_has_no_deadline(why: str) -> None:
    world = preflighted(replace(LADDER, start_deadline_s=60.0))
    if why == "hold":
        world.command("digits", Command.HOLD)
    else:
        world.learn("digits", frozen="frozen until Monday")
    if why == "gates":
        world.learn("digits", gates=GatesSeen(GatesOutcome.PASSED))
    world.pass_time(100)
    run(world, 4)
    assert state(world) is RolloutState.PREFLIGHT


def test_a_crash_before_traffic_that_was_made_good_is_forgiven() -> None:
    world = preflighted()
    world.end(agents_of(world, CANDIDATE)[0], 3)
    run(world, 30)
    world.learn("digits", gates=GatesSeen(GatesOutcome.PASSED))
    run(world, 10)
    assert state(world) is RolloutState.BAKING


def test_silence_of_both_condemns_nobody() -> None:
    world = started()
    for process in world.processes.values():
        process.silent = True
    run(world, 40)
    assert state(world) is RolloutState.BAKING
    for process in world.processes.values():
        process.silent = False
    run(world, 4)
    assert weights(world)[CANDIDATE] == pytest.approx(0.05)


def test_stable_that_dies_while_a_weight_moves_does_not_condemn_the_candidate() -> None:
    world = preflighted()
    world.learn("digits", gates=GatesSeen(GatesOutcome.PASSED))
    for action in plan(world.snapshot()):
        if isinstance(action, act.MoveRollout):
            world.do(action)
    world.doomed.add(STABLE)
    world.end(agents_of(world, STABLE)[0], 3)
    for _ in range(100):
        tick(world)
        world.pass_time(1.0)
    assert state(world) is RolloutState.SHIFTING
    assert weights(world) == {CANDIDATE: 1.0}
    world.doomed.clear()
    run(world, 600)
    assert state(world) is RolloutState.BAKING
    assert weights(world) == pytest.approx({STABLE: 0.95, CANDIDATE: 0.05})


def test_whoever_carries_everything_is_kept_up_while_stable_comes_back() -> None:
    world = started(replicas=2)
    world.doomed.add(STABLE)
    for agent_id in agents_of(world, STABLE):
        world.end(agent_id, 3)
    tick(world)
    assert weights(world) == {CANDIDATE: 1.0}
    world.command("digits", Command.ROLLBACK)
    world.end(agents_of(world, CANDIDATE)[0], -9)
    run(world, 60)
    assert len(agents_of(world, CANDIDATE)) == 2
    assert weights(world) == {CANDIDATE: 1.0}
    world.doomed.clear()
    run(world, 600)
    assert state(world) is RolloutState.ROLLED_BACK
    assert weights(world) == {STABLE: 1.0}


def test_a_preview_is_there_for_as_long_as_it_was_asked_for() -> None:
    steps = (Step(weight=0.0, bake_s=30.0, min_requests=0), Step(weight=1.0, min_requests=0))
    world = started(Plan(strategy=Strategy.BLUE_GREEN, steps=steps))
    run(world, 8)
    assert weights(world) == {STABLE: 1.0}
    world.pass_time(31)
    run(world, 4)
    assert weights(world) == {CANDIDATE: 1.0}
