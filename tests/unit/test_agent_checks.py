"""What the controller makes of agents' own test inferences: news are recorded, lasting failures replaced."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.controller import actions as act
from control_plane.controller.judgement import FIRST_TEST_S, RECORD_EVERY_S, UNREADY_FAILURES
from control_plane.controller.plan import plan
from control_plane.domain import backoff
from control_plane.domain import options as serving_options
from control_plane.domain.endpoint import LIVE_PHASES, AgentPhase, HealthCheck
from serving_agent.contract.status import CheckState, CheckStatus, OptionsEffect
from tests.fakes.world import World, spec

TICK_S = 0.25
FAILS = CheckStatus(state="unhealthy", failures=UNREADY_FAILURES, last_error="logits hold NaN", at=1.0)


def run(world: World, seconds: float = 8.0) -> list[act.Action]:
    done = []
    for _ in range(round(seconds / TICK_S)):
        for action in plan(world.snapshot()):
            world.do(action)
            done.append(action)
        world.pass_time(TICK_S)
    return done


def ready_world(replicas: int = 1) -> World:
    world = World()
    world.want("digits", spec(), replicas)
    run(world)
    return world


def live(world: World) -> list[str]:
    return [row.id for row in world.rows.values() if row.phase in LIVE_PHASES]


def given_up(actions: list[act.Action]) -> list[act.FailAgent]:
    return [action for action in actions if isinstance(action, act.FailAgent)]


def test_only_news_is_recorded() -> None:
    world = ready_world()
    (agent,) = live(world)
    process = world.processes[agent]
    known = world.rows[agent].check
    assert (known.state, known.passed, known.failing) == ("healthy", True, False)
    process.effect = OptionsEffect(plain_s=2.0, optimized_s=1.0, largest_difference=0.1)
    (first,) = plan(world.snapshot())
    expected = replace(known, recorded_at=world.now)
    assert first == act.RecordCheck(agent, expected, process.effect, world.now)
    world.do(first)
    world.pass_time(RECORD_EVERY_S)
    process.check = CheckStatus(state="healthy", at=16.0, duration_s=0.2)
    assert plan(world.snapshot()) == ()
    process.check = CheckStatus(state="unhealthy", at=31.0, failures=1, last_error="no", last_error_at=31.0)
    (second,) = plan(world.snapshot())
    assert isinstance(second, act.RecordCheck)
    now = world.now
    assert second.check == HealthCheck(
        "unhealthy", now, "no", 31.0, failing_since=now, passed=True, recorded_at=now
    )
    assert second.effect == process.effect


def recorded(actions: list[act.Action]) -> list[act.RecordCheck]:
    return [action for action in actions if isinstance(action, act.RecordCheck)]


@settings(max_examples=40)
@given(st.lists(st.sampled_from(["healthy", "unhealthy", "error"]), min_size=30, max_size=60))
def test_whatever_the_tests_say_only_verdicts_are_written_at_once(states: list[CheckState]) -> None:
    world = ready_world()
    process = world.processes[live(world)[0]]
    failures, verdicts, since, written = 0, [False], world.now, []
    for number, state in enumerate(states):
        failures = {"healthy": 0, "error": failures, "unhealthy": failures + 1}[state]
        process.check = CheckStatus(state=state, failures=failures, last_error=f"error {number}")
        found = recorded(run(world, 1.0))
        written += [action.check.failing for action in found]
        (row,) = world.rows.values()
        assert row.check.failing == (failures >= UNREADY_FAILURES)
        if row.check.failing != verdicts[-1]:
            verdicts.append(row.check.failing)
    changes = len(verdicts) - 1
    assert len(written) <= changes + 1 + (world.now - since) / RECORD_EVERY_S
    assert sum(a != b for a, b in pairwise([False, *written])) == changes


def test_the_verdict_outlasts_an_error_and_a_silence_and_ends_with_a_healthy_test() -> None:
    world = ready_world()
    (sick,) = live(world)
    process = world.processes[sick]
    process.check = FAILS
    run(world, world.limits.unfit_s / 2)
    process.check = CheckStatus(state="error", failures=FAILS.failures, last_error="queue full")
    run(world, 1)
    process.silent = True
    run(world, 1)
    process.silent = False
    (failed,) = given_up(run(world, world.limits.unfit_s / 2 + 6))
    assert failed.agent_id == sick


def test_the_verdict_is_written_when_it_begins_and_when_it_ends() -> None:
    world = ready_world()
    process = world.processes[live(world)[0]]
    process.check = FAILS
    (begun,) = recorded(run(world, 2))
    process.check = CheckStatus(state="healthy", last_error="logits hold NaN")
    (ended,) = recorded(run(world, 2))
    assert (begun.check.failing, ended.check.failing) == (True, False)
    assert ended.check.failing_since is None


def test_the_state_keeps_its_beginning_while_the_error_changes() -> None:
    world = ready_world()
    process = world.processes[live(world)[0]]
    run(world, RECORD_EVERY_S)
    process.check = CheckStatus(state="unhealthy", failures=1, last_error="a")
    began = world.now
    run(world, 1)
    process.check = CheckStatus(state="unhealthy", failures=2, last_error="b")
    run(world, RECORD_EVERY_S)
    (row,) = world.rows.values()
    assert (row.check.since, row.check.last_error) == (began, "b")


def test_an_agent_whose_tests_keep_failing_is_replaced_by_a_ready_one_first() -> None:
    world = ready_world()
    (sick,) = live(world)
    world.processes[sick].check = FAILS
    assert given_up(run(world, world.limits.unfit_s - 1)) == []
    assert live(world) == [sick]
    (failed,) = given_up(run(world, 10))
    assert failed.agent_id == sick
    assert failed.reason.endswith("s: logits hold NaN")
    assert sick not in world.processes
    assert len(live(world)) == 1
    assert world.gateway.weights == {"digits": {"digits@1": 1.0}}


def test_a_few_failures_and_tests_that_could_not_run_change_nothing() -> None:
    world = ready_world(replicas=2)
    one, two = live(world)
    world.processes[one].check = CheckStatus(state="unhealthy", failures=UNREADY_FAILURES - 1)
    world.processes[two].check = CheckStatus(state="error", failures=2, last_error="the queue was full")
    assert given_up(run(world, 300)) == []
    assert live(world) == [one, two]


def test_who_recovers_stays() -> None:
    world = ready_world()
    (sick,) = live(world)
    world.processes[sick].check = FAILS
    run(world, world.limits.unfit_s - 1)
    world.processes[sick].check = CheckStatus(state="healthy")
    assert given_up(run(world, 120)) == []
    assert live(world) == [sick]


def test_all_replicas_sick_are_replaced_one_after_another() -> None:
    world = ready_world(replicas=3)
    sick = live(world)
    for agent in sick:
        world.processes[agent].check = FAILS
    most = 0
    for _ in range(300):
        run(world, TICK_S)
        most = max(most, len(live(world)))
        assert world.gateway.weights == {"digits": {"digits@1": 1.0}}
    assert most == 4, "one more than wanted at a time"
    assert set(live(world)).isdisjoint(sick)


@settings(max_examples=4, deadline=None)
@given(replicas=st.integers(1, 3), fit=st.integers(0, 2), seconds=st.integers(600, 900))
def test_attempts_go_on_while_replacements_fail_their_tests_too(
    replicas: int, fit: int, seconds: int
) -> None:
    world = ready_world(replicas)
    first = live(world)
    healthy = set(first[: min(fit, replicas - 1)])
    failed: list[act.FailAgent] = []
    for _ in range(seconds):
        for agent, process in world.processes.items():
            if process.phase == "ready" and agent not in healthy:
                process.check = FAILS
        failed += given_up(run(world, 1.0))
        assert replicas <= len(live(world)) <= replicas + 1
    assert set(first) <= set(live(world)), "a replacement that fails its tests too takes nobody's place"
    longest_s = world.limits.unfit_s + backoff.LONGEST_PAUSE_S + 20
    assert len(failed) >= int(seconds / longest_s)
    ends = [action.at for action in failed]
    assert all(later - earlier <= longest_s for earlier, later in pairwise(ends))
    assert world.gateway.weights == {"digits": {"digits@1": 1.0}}


def test_once_replacements_pass_they_take_the_place_of_all_that_fail() -> None:
    world = ready_world(replicas=2)
    sick = set(live(world))
    cured_at = world.now + 300
    while world.now < cured_at + 400:
        for agent, process in world.processes.items():
            if process.phase == "ready" and (agent in sick or world.now < cured_at):
                sick.add(agent)
                process.check = FAILS
        run(world, 1.0)
    assert sick.isdisjoint(live(world))
    assert len(live(world)) == 2


def deploy_tested(world: World, check: CheckStatus, seconds: float) -> None:
    """Deploy digits@2, whose agents say *check* of their tests as soon as they are ready."""
    world.want("digits", spec("digits@2"))
    for _ in range(round(seconds / TICK_S)):
        for agent, process in world.processes.items():
            if world.rows[agent].version == "digits@2":
                process.check = check
        run(world, TICK_S)


def test_a_version_that_fails_its_tests_never_takes_over_from_one_that_serves() -> None:
    for failures in (1, UNREADY_FAILURES):
        world = ready_world()
        (old,) = live(world)
        deploy_tested(world, CheckStatus(state="unhealthy", failures=failures, last_error="NaN"), 150)
        assert world.gateway.weights == {"digits": {"digits@1": 1.0}}
        assert world.rows[old].phase is AgentPhase.READY


def test_a_version_waits_for_its_first_test_only_briefly_before_it_takes_over() -> None:
    for state in ("unknown", "error"):
        world = ready_world()
        deploy_tested(world, CheckStatus(state=state), FIRST_TEST_S)
        assert world.gateway.weights == {"digits": {"digits@1": 1.0}}
        deploy_tested(world, CheckStatus(state=state), 3)
        assert world.gateway.weights == {"digits": {"digits@2": 1.0}}


def test_a_version_that_has_passed_or_runs_no_tests_takes_over_at_once() -> None:
    off = serving_options.merged(serving_options.DEFAULT, {"check_interval_s": 0})
    for check, wanted in (
        (CheckStatus(state="healthy"), spec("digits@2")),
        (CheckStatus(), replace(spec("digits@2"), options=off)),
    ):
        world = ready_world()
        world.want("digits", wanted)
        for _ in range(16):
            for agent, process in world.processes.items():
                if world.rows[agent].version == "digits@2":
                    process.check = check
            run(world, TICK_S)
        assert world.gateway.weights == {"digits": {"digits@2": 1.0}}


@given(ready=st.floats(0, 1e6), lived=st.floats(0, 1e4), sound=st.floats(0, 1e4))
def test_time_with_failing_tests_proves_nothing(ready: float, lived: float, sound: float) -> None:
    check = HealthCheck("unhealthy", ready, failing=True, failing_since=ready + sound)
    life = backoff.Life(ready, ready + lived, failed=True, sound_until=backoff.sound_until(check))
    proved = min(life.ended_at or 0.0, life.sound_until or 0.0) - ready
    assert backoff.stable(life, ready + 1e5) == (proved >= backoff.STABLE_S)
    assert backoff.sound_until(HealthCheck("healthy", ready)) is None
    assert backoff.sound_until(HealthCheck("unhealthy", ready, failing_since=ready)) is None
