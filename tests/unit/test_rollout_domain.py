"""The states of a rollout: whatever people and the controller do, in whatever order, these rules hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from control_plane.domain import rollout as moves
from control_plane.domain.rollout import (
    ALLOWED,
    ENDED,
    IN_TRAFFIC,
    Command,
    Plan,
    Rollout,
    RolloutState,
    Step,
    Strategy,
    allowed,
    apply,
    check_plan,
)
from control_plane.errors import ConflictError, InvalidInputError

WORKING = frozenset(RolloutState) - ENDED
FORWARD = (Command.APPROVE, Command.PROMOTE, Command.PROMOTE_FULL)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    strategy = draw(st.sampled_from(Strategy))
    if strategy is Strategy.CANARY:
        weights = sorted(draw(st.lists(st.floats(0.01, 0.99), max_size=4, unique=True)))
        steps = moves.canary_steps((*weights, 1.0), bake_s=10)
        if draw(st.booleans()):
            steps = (Step(weight=0.0, mirror=0.5), *steps)
    else:
        steps = moves.default_steps(strategy, bake_s=10)
    approved = tuple(replace(step, approval=draw(st.booleans())) for step in steps)
    plan = Plan(
        strategy=strategy,
        steps=approved,
        auto_advance=draw(st.booleans()),
        warm_s=draw(st.sampled_from([0.0, 50.0])),
    )
    return check_plan(plan)


def rollout(plan: Plan, **changes: Any) -> Rollout:
    given: dict[str, Any] = {
        "state": RolloutState.STARTING, "step_index": 0, "weight": 0.0, "mirror": 0.0, "entered_at": 0.0,
        **changes,
    }  # fmt: skip
    return Rollout(id="r", endpoint="e", stable="m@1", candidate="m@2", plan=plan, **given)


CANARY = Plan(strategy=Strategy.CANARY, steps=moves.canary_steps((0.1, 0.5)))
SHADOW = Plan(strategy=Strategy.SHADOW, steps=moves.default_steps(Strategy.SHADOW))


class Life(RuleBasedStateMachine):
    """A rollout among people and a controller that may do anything at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.value = rollout(CANARY)

    @initialize(plan=plans(), waiver=st.booleans())
    def begin(self, plan: Plan, waiver: bool) -> None:
        state = RolloutState.AWAITING_WAIVER if waiver else RolloutState.STARTING
        self.value = rollout(plan, state=state)

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(command=st.sampled_from(Command), reason=st.none() | st.just("because"))
    def tell(self, command: Command, reason: str | None) -> None:
        before = self.value
        if not allowed(before, command, self.now):
            with pytest.raises(ConflictError) as caught:
                apply(before, command, now=self.now, reason=reason)
            assert caught.value.next_step
            return
        self.value = apply(before, command, now=self.now, reason=reason)
        self._moved(before)
        self._obeyed(before, command, reason)

    @precondition(lambda self: self.value.state is RolloutState.STARTING)
    @rule()
    def started(self) -> None:
        self._step(moves.started(self.value, self.now))

    @precondition(lambda self: self.value.state is RolloutState.PREFLIGHT and not self.value.holds)
    @rule()
    def gates_passed(self) -> None:
        full = self.value.full
        self._step(moves.gates_passed(self.value, self.now))
        assert self.value.step_index == (len(self.value.plan.steps) - 1 if full else 0)

    @precondition(lambda self: self.value.state is RolloutState.SHIFTING)
    @rule()
    def confirmed(self) -> None:
        self._step(moves.confirmed(self.value, self.now))
        assert (self.value.state is RolloutState.FINAL) == (self.value.weight == 1.0)

    @precondition(
        lambda self: self.value.state in (RolloutState.BAKING, RolloutState.FINAL) and not self.value.holds
    )
    @rule()
    def advanced(self) -> None:
        before = self.value
        self._step(moves.advanced(before, self.now))
        if before.step.approval and before.state is RolloutState.BAKING and not before.is_last_step:
            assert self.value.state is RolloutState.AWAITING_APPROVAL
            assert self.value.weight == before.weight

    @precondition(lambda self: self.value.state in IN_TRAFFIC)
    @rule()
    def judged_bad(self) -> None:
        self._step(moves.rolling_back(self.value, self.now, reason="errors", code="errors"))

    @precondition(lambda self: self.value.state is RolloutState.ROLLING_BACK)
    @rule()
    def ended(self) -> None:
        ending = self.value.ending
        self._step(moves.ended(self.value, self.now))
        assert self.value.state is ending

    @precondition(lambda self: self.value.active)
    @rule()
    def superseded(self) -> None:
        rolling = self.value.state is RolloutState.ROLLING_BACK
        ending = self.value.ending if rolling else RolloutState.SUPERSEDED
        before = self.value
        after = moves.cut_short(
            before, self.now, reason="another", code="superseded", ending=RolloutState.SUPERSEDED
        )
        assert (after.state, after.weight, after.warm_until) == (ending, 0.0, None)

    @precondition(lambda self: self.value.state in IN_TRAFFIC)
    @rule()
    def extended(self) -> None:
        before = self.value
        self._step(moves.extended(before, 5.0))
        assert self.value.step.bake_s == before.step.bake_s + 5.0

    @precondition(lambda self: self.value.state in ENDED and self.value.warm_until is not None)
    @rule()
    def window_closed(self) -> None:
        self._step(moves.closed(self.value))

    @invariant()
    def shares_are_shares(self) -> None:
        value = self.value
        assert 0.0 <= value.weight <= 1.0
        assert 0.0 <= value.mirror <= 1.0
        assert 0 <= value.step_index < len(value.plan.steps)
        if value.state in IN_TRAFFIC:
            assert (value.weight, value.mirror) == (value.step.weight, value.step.mirror)
        elif value.state is not RolloutState.COMPLETED:
            assert (value.weight, value.mirror) == (0.0, 0.0)

    @invariant()
    def a_way_back_is_always_open(self) -> None:
        value = self.value
        if value.state in WORKING - {RolloutState.ROLLING_BACK}:
            assert allowed(value, Command.ROLLBACK, self.now)
            assert allowed(value, Command.ABORT, self.now)
        elif value.state is RolloutState.ROLLING_BACK:
            assert value.ending in (RolloutState.ROLLED_BACK, RolloutState.ABORTED)
            harder = value.ending is not RolloutState.ROLLED_BACK
            assert allowed(value, Command.ROLLBACK, self.now) == harder

    @invariant()
    def what_has_ended_stays_so(self) -> None:
        value = self.value
        if value.state not in ENDED:
            return
        possible = {each for each in Command if allowed(value, each, self.now)}
        assert possible <= {Command.ROLLBACK}
        assert bool(possible) == value.may_return(self.now)
        assert value.reason

    @invariant()
    def a_hold_stops_what_goes_forward_and_nothing_else(self) -> None:
        if self.value.holds and self.value.active:
            assert not any(allowed(self.value, each, self.now) for each in FORWARD)

    @invariant()
    def every_state_is_told(self) -> None:
        assert moves.told(self.value)

    def _step(self, after: Rollout) -> None:
        before, self.value = self.value, after
        self._moved(before)

    def _moved(self, before: Rollout) -> None:
        assert self.value.revision == before.revision + 1
        if before.state is RolloutState.ROLLING_BACK:
            assert self.value.state in ENDED | {RolloutState.ROLLING_BACK}
        if self.value.state in IN_TRAFFIC and before.state in IN_TRAFFIC:
            assert self.value.weight >= before.weight
            assert self.value.step_index >= before.step_index

    def _obeyed(self, before: Rollout, command: Command, reason: str | None) -> None:
        after = self.value
        if command in (Command.ROLLBACK, Command.ABORT):
            assert (after.state, after.weight, after.mirror) == (RolloutState.ROLLING_BACK, 0.0, 0.0)
            assert after.reason == (reason or f"asked for: {command}")
            assert after.full is False
        if command is Command.ROLLBACK:
            assert after.ending is RolloutState.ROLLED_BACK
        if command in (Command.HOLD, Command.RESUME):
            assert replace(after, holds=before.holds, revision=before.revision) == before
        if command is Command.PROMOTE and before.state in (RolloutState.BAKING,):
            assert after.step_index == before.step_index + 1 or after.state is RolloutState.COMPLETED


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("state", sorted(WORKING - {RolloutState.ROLLING_BACK}))
def test_precedence_rollback_and_abort_win_from_every_state(state: RolloutState) -> None:
    full = rollout(CANARY, state=state, full=True, holds=frozenset({moves.OPERATOR, "freeze"}))
    aborted = apply(full, Command.ABORT, now=1.0)
    assert aborted.ending is RolloutState.ABORTED
    harder = apply(aborted, Command.ROLLBACK, now=2.0)
    assert harder.ending is RolloutState.ROLLED_BACK
    for command in set(Command) - {Command.ROLLBACK}:
        assert not allowed(aborted, command, 2.0)
    for command in Command:
        assert not allowed(harder, command, 3.0)


@pytest.mark.parametrize("command", FORWARD)
def test_a_hold_wins_over_promotion(command: Command) -> None:
    for state in ALLOWED[command]:
        held = rollout(CANARY, state=state, holds=frozenset({moves.OPERATOR}))
        with pytest.raises(ConflictError, match="resume it first"):
            apply(held, command, now=1.0)


def test_promoting_fully_skips_to_the_last_step_and_counts_once() -> None:
    early = apply(rollout(CANARY), Command.PROMOTE_FULL, now=1.0)
    assert early.full
    assert not allowed(early, Command.PROMOTE_FULL, 1.0)
    passed = moves.gates_passed(moves.started(early, 2.0), 3.0)
    assert (passed.step_index, passed.weight) == (2, 1.0)
    assert not allowed(passed, Command.PROMOTE_FULL, 3.0)
    assert not allowed(rollout(SHADOW), Command.PROMOTE_FULL, 0.0)


def test_a_completed_one_returns_inside_its_window_only() -> None:
    final = rollout(CANARY, state=RolloutState.FINAL, step_index=2, weight=1.0)
    done = moves.advanced(final, 10.0)
    assert (done.state, done.warm_until) == (RolloutState.COMPLETED, 10.0 + CANARY.warm_s)
    assert allowed(done, Command.ROLLBACK, done.warm_until - 1)  # type: ignore[operator]
    assert not allowed(done, Command.ROLLBACK, done.warm_until)  # type: ignore[arg-type]
    assert not allowed(moves.closed(done), Command.ROLLBACK, 11.0)
    compared = moves.advanced(rollout(SHADOW, state=RolloutState.BAKING, mirror=0.2), 10.0)
    assert (compared.state, compared.warm_until, compared.weight) == (RolloutState.COMPLETED, None, 0.0)


def test_only_a_rolled_back_candidate_is_kept_to_be_looked_at() -> None:
    going = rollout(CANARY, state=RolloutState.BAKING, weight=0.1)
    back = moves.ended(moves.rolling_back(going, 5.0, reason="slow", code="latency"), 6.0)
    assert (back.warm_until, back.ending, back.reason_code) == (6.0 + CANARY.debug_s, None, "latency")
    assert moves.ended(apply(going, Command.ABORT, now=5.0), 6.0).warm_until is None


@given(plans())
def test_a_plan_comes_back_from_its_checks_unchanged(plan: Plan) -> None:
    assert check_plan(plan) is plan


@pytest.mark.parametrize(
    "steps",
    [
        (),
        (Step(weight=1.0),) * 2,
        (Step(weight=0.5),),
        (Step(weight=0.5), Step(weight=0.4), Step(weight=1.0)),
        (Step(weight=float("nan")), Step(weight=1.0)),
        (Step(weight=0.1, mirror=0.1), Step(weight=1.0)),
        (Step(weight=1.0, bake_s=-1.0),),
        (Step(weight=1.0, bake_s=moves.MAX_BAKE_S * 2),),
        (*(Step(weight=0.5),) * moves.MAX_STEPS, Step(weight=1.0)),
    ],
)
def test_plans_that_make_no_sense_are_refused(steps: tuple[Step, ...]) -> None:
    with pytest.raises(InvalidInputError):
        check_plan(Plan(strategy=Strategy.CANARY, steps=steps))


def test_a_shadow_sends_copies_only() -> None:
    with pytest.raises(InvalidInputError, match="copies only"):
        check_plan(Plan(strategy=Strategy.SHADOW, steps=(Step(weight=0.5),)))


def test_a_bake_cannot_be_extended_for_ever() -> None:
    with pytest.raises(InvalidInputError):
        moves.extended(rollout(CANARY, state=RolloutState.BAKING), moves.MAX_BAKE_S)
