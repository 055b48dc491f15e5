"""A controller killed between any two of its actions, once or twenty times in a row: no step is skipped, no
bake time shortened, no evidence counted twice, and everything comes out as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from control_plane.analysis import verdict
from control_plane.services import rollout_policies
from control_plane.telemetry import series
from tests.fakes.rollout_control import Arm, Killed, RolloutControl

pytestmark = pytest.mark.timeout(300)

PLAN: dict[str, Any] = {"weights": [0.25, 0.5, 1.0], "bake_s": 2, "min_requests": 20, "warm_s": 5}


@pytest.fixture
def homes(tmp_path: Path) -> Callable[[], Path]:
    numbers = iter(range(1000))
    return lambda: tmp_path / f"home{next(numbers)}"


@pytest.fixture
def opened() -> Iterator[list[RolloutControl]]:
    """Controls whose registries are closed in the end."""
    found: list[RolloutControl] = []
    yield found
    for control in found:
        control.ctx.engine.dispose()


def story(control: RolloutControl) -> list[str]:
    """What became of it, in order, whenever it did."""
    return [f"{action}: {message}" for action, _, message in control.history()]


def evidence(control: RolloutControl) -> tuple[Any, ...]:
    """All that was counted, and when what was decided on it."""
    row, held = control.rollout(), control.evidence()
    return control.history(), row.baked_s, row.step_requests, held.cursor_ms, held.state


def baked(control: RolloutControl) -> list[float]:
    """Seconds from each confirmed weight to the step after it."""
    times = [(action, at) for action, at, _ in control.history()]
    return [
        following[1] - confirmed[1]
        for confirmed, following in pairwise(times)
        if confirmed[0] == "rollout.confirmed" and following[0] != "rollout.rolling_back"
    ]


def carried_through(
    home: Path, opened: list[RolloutControl], fate: Callable[[], bool], **arms: Arm
) -> RolloutControl:
    control = RolloutControl(home)
    opened.append(control)
    control.arms |= {name.replace("_", "@"): arm for name, arm in arms.items()}
    control.start(**PLAN)
    control.fate = fate
    control.run_until("completed", "rolled_back", ticks=200)
    control.run(4)
    return control


def never() -> bool:
    return False


class After:
    """Says yes once, at the *number*-th time it is asked; or *times* times in a row from then on."""

    def __init__(self, number: int, times: int = 1) -> None:
        self.left, self.times = number, times

    def __call__(self) -> bool:
        self.left -= 1
        return -self.times < self.left <= 0


class Counting:
    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return False


@pytest.mark.parametrize("bad", [False, True])
def test_killed_before_every_action_it_all_comes_out_the_same(
    bad: bool, homes: Callable[[], Path], opened: list[RolloutControl]
) -> None:
    """One that takes over looks again at once and may be a tick ahead; otherwise every bit is the same."""
    arms = {"digits_2": Arm(errors=0.2)} if bad else {}
    counting = Counting()
    expected = carried_through(homes(), opened, counting, **arms)
    assert expected.rollout().state == ("rolled_back" if bad else "completed")
    assert counting.asked >= 15
    identical = 0
    for number in range(1, counting.asked + 1):
        control = carried_through(homes(), opened, After(number), **arms)
        assert control.deaths >= 2, number
        assert story(control) == story(expected), f"killed at {number}"
        assert all(seconds >= PLAN["bake_s"] for seconds in baked(control)), f"killed at {number}"
        if control.history() == expected.history():
            assert evidence(control) == evidence(expected), f"killed at {number}"
            identical += 1
    assert identical >= counting.asked / 3


@pytest.mark.parametrize("number", [1, 7, 15])
def test_twenty_crashes_in_a_row_change_nothing(
    number: int, homes: Callable[[], Path], opened: list[RolloutControl]
) -> None:
    expected = carried_through(homes(), opened, never)
    control = carried_through(homes(), opened, After(number, times=20))
    assert control.deaths >= 20
    assert story(control) == story(expected)
    assert all(seconds >= PLAN["bake_s"] for seconds in baked(control))


def test_the_same_ticks_give_the_same_evidence_bit_for_bit(
    homes: Callable[[], Path], opened: list[RolloutControl]
) -> None:
    """Read again from the first tick on, what was measured gives what was counted step by step."""
    control = carried_through(homes(), opened, never)
    again = carried_through(homes(), opened, never)
    again.run(1)
    assert evidence(again)[1:] == evidence(control)[1:]


def test_steps_bake_as_long_as_they_are_watched(
    homes: Callable[[], Path], opened: list[RolloutControl]
) -> None:
    """A minute in which nothing can be measured is no bake time, whoever looks at the clock."""
    control = RolloutControl(homes())
    opened.append(control)
    control.start(**{**PLAN, "bake_s": 10})
    control.run_until("baking")
    control.run(4)
    control.measuring = False
    control.run(120)
    row = control.rollout()
    assert (row.state, row.step_index) == ("baking", 0)
    assert row.baked_s < 10
    assert row.verdict is not None
    assert row.verdict["kind"] == "NO_DATA"
    assert control.gateway.weights["digits"]["digits@2"] == pytest.approx(0.25)
    control.measuring = True
    control.run_until("completed", ticks=300)


def test_a_registry_that_cannot_be_reached_for_a_minute_skips_nothing(
    homes: Callable[[], Path], opened: list[RolloutControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    from control_plane.registry import session

    control = RolloutControl(homes())
    opened.append(control)
    control.start(**{**PLAN, "bake_s": 10})
    control.run_until("baking")
    control.run(4)
    before = dict(control.gateway.weights["digits"])

    def refuse(*_: Any) -> Any:
        raise OperationalError("SELECT 1", {}, Exception("the database is gone"))

    with monkeypatch.context() as broken:
        broken.setattr(session, "write", refuse)
        broken.setattr(session, "read", refuse)
        for _ in range(120):
            assert control.controller.tick() is False
            control.clock.now += 0.5
            control._measure()
    assert control.gateway.weights["digits"] == before
    control.restart_controller()
    control.run_until("completed", ticks=300)
    steps = [message for action, _, message in control.history() if action == "rollout.confirmed"]
    assert [step.split("confirms ")[1].split(" ")[0] for step in steps] == ["25%", "50%", "100%"]


def test_low_traffic_holds_and_says_how_long_it_may_take(
    homes: Callable[[], Path], opened: list[RolloutControl]
) -> None:
    control = RolloutControl(homes(), requests=4)
    opened.append(control)
    control.start(**PLAN)
    control.run_until("baking")
    control.run(80)
    row = control.rollout()
    assert (row.state, row.step_index) == ("baking", 0)
    assert row.verdict is not None
    assert row.verdict["kind"] == "WAIT"
    assert row.verdict["eta_s"] > 0


def test_an_incident_that_both_share_kills_no_candidate(
    homes: Callable[[], Path], opened: list[RolloutControl]
) -> None:
    control = RolloutControl(homes())
    opened.append(control)
    control.start(**PLAN)
    control.run_until("baking")
    control.arms = {"digits@1": Arm(errors=0.5), "digits@2": Arm(errors=0.5)}
    control.run(10)
    assert control.rollout().state not in ("rolling_back", "rolled_back")
    control.arms = {"digits@1": Arm(), "digits@2": Arm()}
    control.run_until("completed", ticks=300)


def test_a_bad_stable_does_not_stop_a_good_candidate(
    homes: Callable[[], Path], opened: list[RolloutControl]
) -> None:
    control = carried_through(homes(), opened, never, digits_1=Arm(errors=0.3))
    assert control.rollout().state == "completed"


def test_where_the_policy_names_sessions_they_are_what_is_counted(
    homes: Callable[[], Path], opened: list[RolloutControl]
) -> None:
    control = RolloutControl(homes(), first_share=0.1)
    opened.append(control)
    policy = {"sticky": {"kind": "header", "name": "session"}}
    rollout_policies.put(control.ctx, "digits", policy, actor="ana")
    control.start(**PLAN)
    control.run_until("baking", ticks=200)
    control.run(9)

    held, row = control.evidence(), control.rollout()
    first_ms, last_ms = round(row.created_at * 1000), held.cursor_ms
    stored = control.store.samples(series.UNIT_REQUESTS, first_ms, last_ms, version="digits@2")
    assert held.state["candidate_requests"] == sum(each.value.sum() for each in stored) > 0
    assert 0 < row.step_requests <= held.state["candidate_requests"]


def test_figures_that_cannot_be_weighed_stop_nothing_but_their_own_rollout(
    homes: Callable[[], Path], opened: list[RolloutControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    control = RolloutControl(homes())
    opened.append(control)
    control.start(**PLAN)
    control.run_until("baking")

    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("cannot convert float NaN to integer")

    with monkeypatch.context() as patched:
        patched.setattr(verdict, "judge", broken)
        control.run(10)
        stable = next(agent for agent in control.platform.agents.values() if agent.manifest.version == 1)
        control.platform.end(stable.manifest.agent_id, 3)
        control.run(10)
    row = control.rollout()
    assert row.verdict is not None
    assert (row.state, row.verdict["kind"], row.verdict["code"]) == ("baking", "NO_DATA", "broken")
    assert any(agent.manifest.version == 1 for agent in control.platform.agents.values()), "it was replaced"
    control.run_until("completed", ticks=300)


def test_gates_that_say_no_end_it_before_any_request(
    homes: Callable[[], Path], opened: list[RolloutControl]
) -> None:
    control = RolloutControl(homes(), gates="failed")
    opened.append(control)
    control.start(**PLAN)
    row = control.run_until("failed")
    assert row.reason_code == "smoke"
    assert control.gateway.weights["digits"] == {"digits@1": 1.0}
    assert row.ended_at is not None


def test_death_is_told_from_error() -> None:
    assert not issubclass(Killed, Exception), "the tick must not be able to catch it"
