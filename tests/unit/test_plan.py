from __future__ import annotations

from dataclasses import replace

from control_plane.controller import actions as act
from control_plane.controller import staffing
from control_plane.controller.plan import plan
from control_plane.controller.scene import Scene
from control_plane.controller.snapshot import Limits
from control_plane.domain.endpoint import LIVE_PHASES, AgentPhase
from control_plane.gateway.traffic_plan import GatewayState, TrafficPlan
from tests.fakes.world import World, spec

TICK_S = 0.25


def tick(world: World) -> tuple[act.Action, ...]:
    actions = plan(world.snapshot())
    for action in actions:
        world.do(action)
    return actions


def run(world: World, ticks: int = 30) -> None:
    for _ in range(ticks):
        tick(world)
        world.pass_time(TICK_S)


def serving(world: World, name: str = "digits") -> dict[str, float]:
    return world.gateway.weights.get(name, {})


def live(world: World, version: str | None = None) -> list[str]:
    return [
        row.id
        for row in world.rows.values()
        if row.phase in LIVE_PHASES and (version is None or row.version == version)
    ]


def ready_world(version: str = "digits@1", replicas: int = 1) -> World:
    world = World()
    world.want("digits", spec(version), replicas)
    run(world)
    assert serving(world) == {version: 1.0}
    return world


def test_a_new_endpoint_gets_its_agents_and_then_its_traffic() -> None:
    world = World()
    world.want("digits", spec(), replicas=2)
    first = tick(world)
    assert [type(action) for action in first[:4]] == [
        act.CreateAgent, act.StartAgent, act.CreateAgent, act.StartAgent,
    ]  # fmt: skip
    assert serving(world) == {}
    run(world)
    assert serving(world) == {"digits@1": 1.0}
    assert len(world.processes) == 2
    assert world.endpoints["digits"].serving == "digits@1"


def test_the_first_ready_replica_serves_while_the_others_load() -> None:
    world = World(limits=Limits(start_slots=1))
    world.want("digits", spec(), replicas=3)
    seen_serving_with_one = False
    for _ in range(60):
        tick(world)
        world.pass_time(TICK_S)
        members = world.gateway.backends.get(("digits", "digits@1"), frozenset())
        seen_serving_with_one |= bool(serving(world)) and len(members) == 1
    assert seen_serving_with_one
    assert len(live(world)) == 3


def test_what_is_as_it_should_be_needs_no_action() -> None:
    assert plan(ready_world(replicas=3).snapshot()) == ()


def test_timings_add_up_from_creation_to_traffic() -> None:
    world = ready_world()
    (row,) = world.rows.values()
    assert set(row.timings_s) >= {"start", "gateway"}


def test_scaling_up_keeps_who_serves_and_scaling_down_keeps_the_oldest() -> None:
    world = ready_world()
    (first,) = live(world)
    world.want("digits", spec(), replicas=3)
    run(world)
    assert len(live(world)) == 3
    world.want("digits", spec(), replicas=1)
    run(world)
    assert live(world) == [first]
    assert set(world.processes) == {first}
    assert world.gateway.backends == {("digits", "digits@1"): frozenset({first})}


def test_another_version_takes_over_when_all_its_replicas_are_in_place() -> None:
    world = ready_world(replicas=2)
    world.want("digits", spec("digits@2"), replicas=2)
    switched_with = None
    for _ in range(40):
        tick(world)
        if switched_with is None and serving(world) == {"digits@2": 1.0}:
            switched_with = (
                len(world.gateway.backends["digits", "digits@1"]),
                len(world.gateway.backends["digits", "digits@2"]),
            )
        world.pass_time(TICK_S)
    assert switched_with == (2, 2)
    assert live(world, "digits@1") == []
    assert len(world.processes) == 2
    assert world.endpoints["digits"].serving == "digits@2"


def test_the_decision_is_written_before_the_routes_follow() -> None:
    world = ready_world()
    world.want("digits", spec("digits@2"))
    for _ in range(40):
        actions = tick(world)
        kinds = [type(action) for action in actions]
        if act.SetServing in kinds:
            assert kinds.index(act.SetServing) < kinds.index(act.PublishRoutes)
            return
        world.pass_time(TICK_S)
    raise AssertionError("never switched")


def test_an_old_agent_waits_for_its_last_request() -> None:
    world = ready_world()
    (old,) = live(world)
    world.processes[old].in_flight = 1
    world.want("digits", spec("digits@2"))
    run(world)
    assert serving(world) == {"digits@2": 1.0}
    assert world.rows[old].phase is AgentPhase.READY
    assert world.gateway.backends["digits", "digits@1"] == {old}
    world.processes[old].in_flight = 0
    run(world, 10)
    assert old not in world.processes
    assert world.rows[old].phase is AgentPhase.STOPPED


def test_a_request_that_never_ends_is_waited_for_until_the_drain_timeout() -> None:
    world = ready_world()
    (old,) = live(world)
    world.processes[old].in_flight = 1
    world.want("digits", spec("digits@2"))
    run(world)
    world.now += world.limits.drain_timeout_s
    run(world, 10)
    assert world.rows[old].phase is AgentPhase.DRAINING
    world.now += world.limits.drain_timeout_s + world.limits.end_grace_s
    run(world, 10)
    assert old in world.forced
    assert world.rows[old].phase is AgentPhase.STOPPED


def test_a_restart_replaces_every_agent_behind_the_same_backend() -> None:
    world = ready_world(replicas=2)
    before = set(live(world))
    world.want("digits", spec(restart=1), replicas=2)
    run(world, 40)
    assert len(live(world)) == 2
    assert before.isdisjoint(live(world))
    assert serving(world) == {"digits@1": 1.0}


def test_a_crash_after_a_change_of_settings_brings_back_nobody_of_before() -> None:
    world = ready_world(replicas=2)
    world.want("digits", spec(threads=2), replicas=2)
    run(world, 40)
    world.end(live(world)[0], -9)
    run(world, 20)
    assert {world.rows[agent].spec.threads for agent in live(world)} == {2}
    before = [row for row in world.rows.values() if row.spec.threads == 1]
    assert len(before) == 2, "no agent was started with the settings of before"


def test_a_crash_during_a_change_of_settings_is_made_good_with_those_of_before() -> None:
    world = ready_world(replicas=2)
    victim = live(world)[0]
    world.want("digits", spec(threads=2), replicas=2)
    tick(world)
    world.end(victim, -9)
    tick(world)
    assert sum(row.spec.threads == 1 and row.phase in LIVE_PHASES for row in world.rows.values()) == 2


def test_a_crashed_agent_is_replaced_at_once_the_first_time() -> None:
    world = ready_world(replicas=2)
    victim = live(world)[0]
    world.end(victim, -9)
    actions = tick(world)
    assert any(isinstance(action, act.FailAgent) and action.agent_id == victim for action in actions)
    assert any(isinstance(action, act.CreateAgent) for action in actions)
    assert victim not in world.gateway.backends["digits", "digits@1"]
    run(world)
    assert len(live(world)) == 2


def test_the_only_agent_gone_means_no_route_and_then_no_backend() -> None:
    world = ready_world()
    world.doomed.add("digits@1")
    world.end(live(world)[0], -11)
    kinds = [type(action) for action in tick(world)]
    assert act.PublishRoutes in kinds
    assert act.PublishBackends not in kinds
    run(world, 4)
    assert serving(world) == {}
    assert world.gateway.backends == {}
    assert world.endpoints["digits"].serving == "digits@1"


def test_a_crash_loop_slows_down_and_leaves_the_old_version_serving() -> None:
    world = ready_world()
    world.doomed.add("digits@2")
    world.want("digits", spec("digits@2"))
    run(world, ticks=4 * 60)
    failed = [row for row in world.rows.values() if row.phase is AgentPhase.FAILED]
    assert 4 <= len(failed) <= 8
    assert serving(world) == {"digits@1": 1.0}
    assert len(live(world, "digits@1")) == 1


def test_the_old_version_is_replaced_too_while_the_new_one_fails() -> None:
    world = ready_world(replicas=2)
    world.doomed.add("digits@2")
    world.want("digits", spec("digits@2"), replicas=2)
    run(world, 20)
    world.end(live(world, "digits@1")[0], -9)
    run(world, 20)
    assert len(live(world, "digits@1")) == 2
    assert serving(world) == {"digits@1": 1.0}


def test_a_third_version_ends_the_second_before_it_served() -> None:
    world = ready_world()
    world.want("digits", spec("digits@2"))
    tick(world)
    (second,) = live(world, "digits@2")
    world.want("digits", spec("digits@3"))
    run(world, 40)
    assert second not in world.processes
    assert serving(world) == {"digits@3": 1.0}


def test_going_back_keeps_the_agents_that_still_serve() -> None:
    world = ready_world()
    first = live(world)
    world.want("digits", spec("digits@2"))
    run(world, 2)
    world.want("digits", spec())
    run(world, 20)
    assert live(world) == first
    assert set(world.processes) == set(first)


def test_one_that_hangs_while_loading_is_given_up() -> None:
    world = World()
    world.want("digits", spec())
    tick(world)
    (agent,) = world.processes
    world.processes[agent].phase = "loading"
    world.now += world.limits.start_timeout_s + 1
    actions = tick(world)
    (failure,) = [action for action in actions if isinstance(action, act.FailAgent)]
    assert failure.reason == "did not become ready within 180 s: still loading"
    assert agent not in world.processes


def test_one_that_stops_answering_is_replaced() -> None:
    world = ready_world()
    (agent,) = live(world)
    world.processes[agent].silent = True
    tick(world)
    world.now += world.limits.silent_unready_s
    run(world, 2)
    assert serving(world) == {}
    world.now += world.limits.silent_kill_s
    run(world, 30)
    assert agent not in world.processes
    assert serving(world) == {"digits@1": 1.0}


def test_a_short_silence_changes_nothing() -> None:
    world = ready_world()
    world.processes[live(world)[0]].silent = True
    tick(world)
    world.now += world.limits.silent_unready_s / 2
    assert plan(world.snapshot()) == ()


def test_a_stopped_endpoint_loses_its_route_first_and_can_start_again() -> None:
    world = ready_world(replicas=2)
    world.want("digits", spec(), replicas=2, goal="stopped")
    first = tick(world)
    assert not any(isinstance(action, act.StopAgent | act.PublishBackends) for action in first)
    assert serving(world) == {}
    run(world)
    assert world.processes == {}
    assert world.gateway.backends == {}
    world.want("digits", spec(), replicas=2)
    run(world)
    assert serving(world) == {"digits@1": 1.0}


def test_a_deleted_endpoint_is_forgotten_when_its_last_agent_is_gone() -> None:
    world = ready_world(replicas=2)
    world.want("digits", spec(), replicas=2, goal="deleted")
    run(world)
    assert world.endpoints == {}
    assert world.rows == {}
    assert world.processes == {}
    assert world.gateway.weights == {}


def test_a_row_whose_start_was_cut_short_is_started() -> None:
    world = World()
    world.want("digits", spec())
    create = next(action for action in plan(world.snapshot()) if isinstance(action, act.CreateAgent))
    world.do(create)
    assert plan(world.snapshot()) == (
        act.StartAgent(create.agent_id),
        act.PublishRoutes((TrafficPlan("digits", ()),)),
    )


def test_a_process_whose_recording_was_cut_short_is_adopted() -> None:
    world = World()
    world.want("digits", spec())
    tick(world)
    run(world)
    assert len(world.processes) == 1


def test_a_process_without_a_row_is_ended() -> None:
    world = ready_world()
    world.rows.clear()
    world.endpoints.clear()
    run(world, 4)
    assert world.processes == {}


def test_nothing_is_ended_or_routed_while_the_gateway_is_silent() -> None:
    world = ready_world(replicas=2)
    world.gateway.live = False
    world.want("digits", spec("digits@2"), replicas=2)
    run(world, 20)
    assert len(live(world, "digits@1")) == 2
    assert len(live(world, "digits@2")) == 2
    world.gateway.live = True
    run(world, 20)
    assert serving(world) == {"digits@2": 1.0}
    assert len(world.processes) == 2


def test_an_unhealthy_newcomer_gets_no_traffic() -> None:
    world = ready_world()
    world.gateway.set_healthy("digits", "digits@2", 0)
    world.want("digits", spec("digits@2"))
    run(world, 40)
    assert serving(world) == {"digits@1": 1.0}
    world.gateway.set_healthy("digits", "digits@2", 1)
    run(world, 10)
    assert serving(world) == {"digits@2": 1.0}


def test_start_slots_bound_how_many_load_at_once() -> None:
    world = World(limits=Limits(start_slots=2))
    world.want("digits", spec(), replicas=5)
    most = 0
    for _ in range(60):
        tick(world)
        most = max(most, sum(process.phase != "ready" for process in world.processes.values()))
        world.pass_time(TICK_S)
    assert most == 2
    assert len(live(world)) == 5


def test_one_that_vanished_without_a_trace_is_replaced() -> None:
    world = ready_world()
    (agent,) = live(world)
    world.end(agent, None)
    (failure,) = [action for action in tick(world) if isinstance(action, act.FailAgent)]
    assert (failure.agent_id, failure.exit_code) == (agent, None)
    run(world)
    assert len(live(world)) == 1


def test_a_version_does_not_take_over_with_fewer_replicas_than_wanted() -> None:
    world = ready_world(replicas=2)
    world.limits = Limits(start_slots=1)
    world.want("digits", spec("digits@2"), replicas=2)
    for _ in range(60):
        tick(world)
        if serving(world) == {"digits@2": 1.0}:
            assert len(world.gateway.backends["digits", "digits@2"]) == 2
            return
        world.pass_time(TICK_S)
    raise AssertionError("never switched")


def test_nothing_is_decided_for_a_version_the_gateway_finds_unhealthy() -> None:
    world = World()
    world.gateway.set_healthy("digits", "digits@1", 0)
    world.want("digits", spec())
    run(world)
    assert world.endpoints["digits"].serving is None
    assert serving(world) == {}


def test_a_surplus_agent_with_a_request_is_out_of_the_gateway_but_not_ended() -> None:
    world = ready_world()
    (first,) = live(world)
    world.want("digits", spec(), replicas=2)
    run(world)
    (second,) = set(live(world)) - {first}
    world.processes[second].in_flight = 1
    world.want("digits", spec(), replicas=1)
    run(world, 10)
    assert world.gateway.backends["digits", "digits@1"] == {first}
    assert world.rows[second].phase is AgentPhase.READY
    world.processes[second].in_flight = 0
    run(world, 10)
    assert second not in world.processes


def test_old_agents_do_not_leave_before_the_routes_have_moved() -> None:
    world = ready_world()
    (old,) = live(world)
    world.want("digits", spec("digits@2"))
    for _ in range(40):
        snapshot = world.snapshot()
        agents = tuple(agent for agent in snapshot.agents)
        scene = Scene(snapshot.endpoints[0], agents, snapshot.gateway, snapshot.limits, snapshot.now)
        if "digits@1" in serving(world):
            assert old not in staffing.leaving(scene, "digits@1")
        tick(world)
        world.pass_time(TICK_S)


def test_nobody_drains_on_what_a_silent_gateway_does_not_say() -> None:
    world = ready_world()
    world.want("digits", spec(), goal="stopped")
    tick(world)
    snapshot = world.snapshot()
    idle = tuple(replace(agent, unrouted_s=1000.0) for agent in snapshot.agents)
    blind = GatewayState(live=False, backends={}, weights={})
    assert not any(
        isinstance(action, act.DrainAgent) for action in plan(replace(snapshot, agents=idle, gateway=blind))
    )


def there_and_back_again(replicas: int = 2) -> World:
    """@1 served, @2 serves, and @1 is wanted again but does not get ready."""
    world = ready_world(replicas=replicas)
    world.want("digits", spec("digits@2"), replicas)
    run(world, 40)
    assert serving(world) == {"digits@2": 1.0}
    assert live(world, "digits@1") == []
    world.doomed.add("digits@1")
    world.want("digits", spec(), replicas)
    return world


def test_going_back_to_an_earlier_version_still_replaces_what_serves() -> None:
    world = there_and_back_again()
    run(world, 20)
    world.end(live(world, "digits@2")[0], -9)
    run(world, 20)
    assert len(live(world, "digits@2")) == 2
    assert serving(world) == {"digits@2": 1.0}


def test_going_back_before_the_last_old_request_ended_still_replaces_what_serves() -> None:
    world = ready_world(replicas=2)
    slow = live(world)[0]
    world.processes[slow].in_flight = 1
    world.want("digits", spec("digits@2"), replicas=2)
    run(world)
    world.now += world.limits.drain_timeout_s
    run(world, 4)
    assert world.rows[slow].phase is AgentPhase.DRAINING
    world.gateway.set_healthy("digits", "digits@1", 0)
    world.want("digits", spec(), replicas=2)
    run(world, 8)
    world.processes[slow].in_flight = 0
    run(world, 8)
    assert world.rows[slow].phase is AgentPhase.STOPPED
    world.end(live(world, "digits@2")[0], -9)
    run(world, 20)
    assert len(live(world, "digits@2")) == 2


def test_a_change_that_is_scaled_down_half_way_still_replaces_what_serves() -> None:
    world = ready_world(replicas=2)
    world.gateway.set_healthy("digits", "digits@2", 0)
    world.want("digits", spec("digits@2"), replicas=2)
    run(world)
    world.want("digits", spec("digits@2"), replicas=3)
    tick(world)
    world.want("digits", spec("digits@2"), replicas=2)
    run(world)
    ended = [row.phase for row in world.rows.values() if row.version == "digits@2"]
    assert ended.count(AgentPhase.STOPPED) == 1
    world.end(live(world, "digits@1")[0], -9)
    run(world)
    assert len(live(world, "digits@1")) == 2
    assert serving(world) == {"digits@1": 1.0}


def test_the_old_version_comes_back_after_everything_was_shut_down_in_a_change() -> None:
    world = ready_world(replicas=2)
    world.gateway.set_healthy("digits", "digits@2", 0)
    world.want("digits", spec("digits@2"), replicas=2)
    run(world, 20)
    for agent_id in live(world):
        world.end(agent_id, 0)
        world.rows[agent_id] = replace(
            world.rows[agent_id], phase=AgentPhase.STOPPED, ended_at=world.now, process=None
        )
    world.gateway.weights.clear()
    world.gateway.backends.clear()
    world.pass_time(60.0)
    run(world, 20)
    assert len(live(world, "digits@1")) == 2
    world.end(live(world, "digits@1")[0], -9)
    run(world, 20)
    assert len(live(world, "digits@1")) == 2
    assert serving(world) == {"digits@1": 1.0}


def test_one_of_two_replicas_is_not_yet_the_whole_of_them() -> None:
    world = ready_world(replicas=1)
    world.want("digits", spec(), replicas=2)
    snapshot = world.snapshot()
    scene = Scene(snapshot.endpoints[0], snapshot.agents, snapshot.gateway, snapshot.limits, snapshot.now)
    assert len(staffing.kept(scene)) == 1
    assert not staffing.complete(scene)


def test_start_slots_are_shared_by_all_endpoints() -> None:
    world = World(limits=Limits(start_slots=2))
    names = ("digits", "letters", "words")
    for name in names:
        world.want(name, spec(), replicas=2)
    most = 0
    for _ in range(80):
        tick(world)
        most = max(
            most, sum(row.phase in LIVE_PHASES and row.ready_at is None for row in world.rows.values())
        )
        world.pass_time(TICK_S)
    assert most == 2
    assert len(live(world)) == 6
    assert all(serving(world, name) == {"digits@1": 1.0} for name in names)
