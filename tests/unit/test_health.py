"""An endpoint's health, word by word."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.endpoint import AgentPhase, EndpointGoal, EndpointHealth, HealthCheck
from control_plane.domain.health import CRASH_WINDOW_S, AgentFacts, EndpointFacts, Health, assess

NOW = 10_000.0


def agent(phase: AgentPhase, *, current: bool = True, **changes: object) -> AgentFacts:
    ref = "digits@2" if current else "digits@1"
    given_: dict[str, object] = {
        "id": "k3x9",
        "version_ref": ref,
        "phase": phase,
        "current": current,
        "in_traffic": phase == AgentPhase.READY,
        **changes,
    }
    return AgentFacts(**given_)  # type: ignore[arg-type]


def failed(seconds_ago: float, **changes: object) -> AgentFacts:
    return agent(AgentPhase.FAILED, reason="no memory left.", ended_at=NOW - seconds_ago, **changes)


def judge(*agents: AgentFacts, **changes: object) -> Health:
    given_: dict[str, object] = {
        "goal": EndpointGoal.RUNNING,
        "replicas": 1,
        "version_ref": "digits@2",
        "serving_ref": "digits@2",
        "agents": agents,
        "now": NOW,
        **changes,
    }
    return assess(EndpointFacts(**given_))  # type: ignore[arg-type]


def test_ready_when_all_are() -> None:
    health = judge(agent(AgentPhase.READY))
    assert (health.word, health.sentence, health.ready) == (EndpointHealth.READY, "1 of 1 agent ready.", 1)


def test_not_ready_before_the_gateway_sends_it_requests() -> None:
    health = judge(agent(AgentPhase.READY, in_traffic=False))
    assert (health.word, health.ready) == (EndpointHealth.UPDATING, 0)
    assert health.sentence == "0 of 1 agent ready; agent k3x9 is joining the gateway with digits@2."


def test_crash_loop_says_when_it_is_tried_next() -> None:
    health = judge(failed(2), failed(20), failed(30), failed(40), failed(50), serving_ref=None)
    assert "next attempt in 6 s" in health.sentence  # 2**(5-2) seconds after the last failure


def test_a_stable_life_ends_the_series() -> None:
    stable = agent(AgentPhase.READY, ready_at=NOW - 120)
    assert judge(stable, failed(200), failed(210), failed(220)).word == EndpointHealth.READY
    assert judge(stable, failed(200), failed(210), failed(220), replicas=2).word == EndpointHealth.UPDATING


def test_ready_while_a_surplus_agent_drains() -> None:
    assert judge(agent(AgentPhase.READY), agent(AgentPhase.DRAINING)).word == EndpointHealth.READY


def test_starting_says_which_agent_does_what() -> None:
    health = judge(agent(AgentPhase.LOADING), serving_ref=None, replicas=2)
    assert health.word == EndpointHealth.STARTING
    assert health.sentence == "0 of 2 agents ready; agent k3x9 is loading digits@2."


def test_updating_while_the_old_version_still_serves() -> None:
    health = judge(agent(AgentPhase.WARMING), agent(AgentPhase.READY, current=False), serving_ref="digits@1")
    assert health.word == EndpointHealth.UPDATING
    assert health.ready == 0
    assert "requests still go to digits@1" in health.sentence


def test_updating_until_the_old_agents_are_gone() -> None:
    health = judge(agent(AgentPhase.READY), agent(AgentPhase.DRAINING, current=False))
    assert health.word == EndpointHealth.UPDATING


def test_updating_until_requests_go_to_the_new_version() -> None:
    assert judge(agent(AgentPhase.READY), serving_ref="digits@1").word == EndpointHealth.UPDATING


def test_scaling_up_is_no_illness() -> None:
    health = judge(agent(AgentPhase.READY), agent(AgentPhase.STARTING), replicas=3)
    assert health.word == EndpointHealth.UPDATING


def test_three_recent_failures_are_a_crash_loop_with_its_reason() -> None:
    health = judge(failed(5), failed(30), failed(60), serving_ref=None)
    assert health.word == EndpointHealth.CRASH_LOOP
    assert "no memory left" in health.sentence
    assert ".." not in health.sentence


def test_two_failures_are_not_yet() -> None:
    assert judge(failed(5), failed(30), serving_ref=None).word == EndpointHealth.STARTING


def test_failures_outside_the_window_and_of_other_goals_do_not_count() -> None:
    old = failed(CRASH_WINDOW_S + 1)
    assert judge(failed(5), failed(6), old, serving_ref=None).word == EndpointHealth.STARTING
    other = failed(7, current=False)
    assert judge(failed(5), failed(6), other, serving_ref=None).word == EndpointHealth.STARTING


def test_degraded_when_some_serve_and_others_fail() -> None:
    health = judge(agent(AgentPhase.READY), failed(5), replicas=2)
    assert health.word == EndpointHealth.DEGRADED
    assert health.ready == 1


def test_stopped_and_stopping() -> None:
    assert judge(goal=EndpointGoal.STOPPED).word == EndpointHealth.STOPPED
    assert judge(agent(AgentPhase.DRAINING), goal=EndpointGoal.STOPPED).word == EndpointHealth.STOPPING
    assert judge(agent(AgentPhase.READY), goal=EndpointGoal.DELETED).word == EndpointHealth.STOPPING


agents = st.builds(
    AgentFacts,
    id=st.just("a1"),
    version_ref=st.sampled_from(["digits@1", "digits@2"]),
    phase=st.sampled_from(list(AgentPhase)),
    current=st.booleans(),
    in_traffic=st.booleans(),
    reason=st.none() | st.just("broken"),
    ready_at=st.none() | st.floats(0, NOW),
    ended_at=st.none() | st.floats(0, NOW),
)


@given(
    st.lists(agents, max_size=6),
    st.sampled_from(list(EndpointGoal)),
    st.integers(1, 5),
    st.sampled_from([None, "digits@1", "digits@2"]),
)
def test_any_state_has_a_word_and_one_sentence(
    shown: list[AgentFacts], goal: EndpointGoal, replicas: int, serving_ref: str | None
) -> None:
    health = judge(*shown, goal=goal, replicas=replicas, serving_ref=serving_ref)
    assert health.sentence.endswith(".")
    assert (health.word == EndpointHealth.READY) <= (health.ready >= replicas and serving_ref == "digits@2")
    assert (health.word in (EndpointHealth.STOPPED, EndpointHealth.STOPPING)) == (
        goal != EndpointGoal.RUNNING
    )


def test_degraded_while_a_ready_model_fails_its_own_tests() -> None:
    sick = agent(AgentPhase.READY, check=HealthCheck("error", NOW - 30, "logits hold NaN.", failing=True))
    health = judge(sick, agent(AgentPhase.READY, id="z2"), replicas=2)
    assert (health.word, health.ready) == (EndpointHealth.DEGRADED, 2)
    assert health.sentence == "2 of 2 agents ready; agent k3x9 fails its test inference: logits hold NaN."


def test_one_failed_test_or_one_that_could_not_be_run_makes_no_endpoint_degraded() -> None:
    for state in ("error", "unhealthy"):
        seen = agent(AgentPhase.READY, check=HealthCheck(state, NOW - 30, "why", failing_since=NOW - 30))
        assert judge(seen).word == EndpointHealth.READY


def test_agents_given_up_for_failed_tests_make_a_crash_loop_however_long_they_ran() -> None:
    check = HealthCheck("unhealthy", NOW - 480, "NaN", failing=True, failing_since=NOW - 480)
    lives = [failed(10 + 100 * i, id=f"a{i}", ready_at=NOW - 490, check=check) for i in range(4)]
    assert judge(*lives).word == EndpointHealth.CRASH_LOOP
    proved = [failed(10 + 100 * i, id=f"a{i}", ready_at=NOW - 490) for i in range(4)]
    assert judge(*proved).word != EndpointHealth.CRASH_LOOP
