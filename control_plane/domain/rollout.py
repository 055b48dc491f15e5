"""One candidate's way to stable: its steps, its states, and what may be asked of it. Pure.

A rollout is a value; `apply` returns the next one or says why not. Who applies what is decided elsewhere:
people through services, the controller by its verdicts. Both name the revision they saw.

    awaiting_waiver ─► starting ─► preflight ─► shifting ─► baking ─► awaiting_approval ─► shifting ─► …
                                                  └► final (weight 1.0) ─► completed
    any of these ─► rolling_back ─► rolled_back | aborted | superseded | failed
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from control_plane.errors import ConflictError, InvalidInputError


class Strategy(StrEnum):
    """How a candidate gets its traffic."""

    CANARY = "canary"
    BLUE_GREEN = "blue-green"
    SHADOW = "shadow"


class RolloutState(StrEnum):
    """Where a rollout is; the last five are final."""

    AWAITING_WAIVER = "awaiting_waiver"
    """Nothing runs until a second person has agreed to leave the gates out."""
    STARTING = "starting"
    """The candidate's agents come up beside stable; they get no traffic."""
    PREFLIGHT = "preflight"
    """The gates before traffic run against the started candidate."""
    SHIFTING = "shifting"
    """A step's weight is decided, and not yet confirmed by the gateway."""
    BAKING = "baking"
    """Requests follow the step's weight; evidence gathers."""
    AWAITING_APPROVAL = "awaiting_approval"
    """The step has proven itself; a person lets it go on."""
    FINAL = "final"
    """All requests go to the candidate; stable is kept warm and rollback is armed."""
    ROLLING_BACK = "rolling_back"
    """Stable is to get every request again; ends in the state that `ending` names."""
    COMPLETED = "completed"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    """It never got traffic: its agents did not start, or a gate said no."""


ENDED: Final = frozenset(
    {
        RolloutState.COMPLETED,
        RolloutState.ROLLED_BACK,
        RolloutState.ABORTED,
        RolloutState.SUPERSEDED,
        RolloutState.FAILED,
    }
)
IN_TRAFFIC: Final = frozenset(
    {RolloutState.SHIFTING, RolloutState.BAKING, RolloutState.AWAITING_APPROVAL, RolloutState.FINAL}
)
"""States in which requests may reach the candidate, or copies of them."""


class VerdictKind(StrEnum):
    """What the evidence says of the candidate."""

    PASS = "PASS"  # noqa: S105  a verdict
    """Every guardrail that applies has been shown to be safe."""
    WAIT = "WAIT"
    """Neither worse nor safe yet."""
    FAIL = "FAIL"
    NO_DATA = "NO_DATA"
    """Nothing to judge by, or too old; never promotes, never rolls back."""


class Command(StrEnum):
    """What people, and the controller for them, may ask of a rollout."""

    APPROVE = "approve"
    PROMOTE = "promote"
    PROMOTE_FULL = "promote-full"
    HOLD = "hold"
    RESUME = "resume"
    ABORT = "abort"
    ROLLBACK = "rollback"


DEFAULT_WEIGHTS: Final = (0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
DEFAULT_BAKE_S: Final = 300.0
DEFAULT_MIN_REQUESTS: Final = 100
DEFAULT_MIRROR: Final = 0.2
MAX_STEPS: Final = 20
MAX_BAKE_S: Final = 7 * 24 * 3600.0
OPERATOR: Final = "operator"
"""Hold reason: a person has pressed Hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. weight: the candidate's share of requests in [0, 1]; mirror: the share copied to it."""

    weight: float
    mirror: float = 0.0
    bake_s: float = DEFAULT_BAKE_S
    """Least observed time at this weight, in seconds."""
    min_requests: int = DEFAULT_MIN_REQUESTS
    """Least requests (or compared copies) of the candidate at this step."""
    approval: bool = False
    """Whether a person lets the rollout go on from here."""

    @property
    def is_final(self) -> bool:
        """Whether all requests go to the candidate."""
        return self.weight >= 1.0

    @property
    def measures(self) -> bool:
        """Whether the candidate gets requests, or copies, to be judged by."""
        return self.weight > 0 or self.mirror > 0


@dataclass(frozen=True, slots=True)
class Guardrail:
    """How one thing that must not get worse is judged. Defaults are in `analysis.catalog`.

    tolerance: a difference that does not count as worse (a share, in [0, 1)); max_regression: the smallest
    difference that "safe" must exclude; alpha_share: its part of the rollout's chance of a false rollback.
    """

    name: str
    tolerance: float
    max_regression: float
    alpha_share: float
    observe_only: bool = False
    """Shown and reported, but neither promotes nor rolls back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a rollout was started with; its own copy, which later changes of defaults do not touch."""

    strategy: Strategy
    steps: tuple[Step, ...]
    auto_advance: bool = True
    guardrails: tuple[Guardrail, ...] = ()
    start_deadline_s: float = 900.0
    """Longest time until the candidate is ready, and again until it has passed its gates, in seconds."""
    shift_deadline_s: float = 60.0
    """Longest wait for the gateway to confirm a weight, in seconds."""
    warm_s: float = 900.0
    """How long the old stable version is kept warm after completion, in seconds."""
    debug_s: float = 600.0
    """How long a candidate that was rolled back is kept for the debugger, in seconds."""
    skip_gates: str | None = None
    """Why the gates before traffic are left out; None: they run."""
    break_freeze: str | None = None
    """Why freeze windows do not hold it; None: they do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One rollout as it stands. Versions are `model@N`; times are UTC seconds since the epoch."""

    id: str
    endpoint: str
    stable: str
    candidate: str
    plan: Plan
    state: RolloutState
    step_index: int
    """Index into the plan's steps: the step it is at, or will begin with."""
    weight: float
    """The candidate's share of requests as decided."""
    mirror: float
    holds: frozenset[str] = field(default_factory=frozenset)
    entered_at: float
    """When it entered its state."""
    baked_s: float = 0.0
    """Observed time at this step, in seconds: gaps in the evidence do not count."""
    step_requests: int = 0
    """The candidate's requests, or compared copies, at this step."""
    revision: int = 1
    created_by: str = ""
    created_at: float = 0.0
    warm_until: float | None = None
    """Until when the version that lost is kept warm; None while both are needed, or once it is gone."""
    ending: RolloutState | None = None
    """What ROLLING_BACK becomes."""
    reason: str | None = None
    """Why it is ending or has ended, in one sentence."""
    reason_code: str | None = None
    full: bool = False
    """Whether the remaining steps are to be skipped once the candidate is ready."""

    @property
    def step(self) -> Step:
        """The step it is at."""
        return self.plan.steps[self.step_index]

    @property
    def is_last_step(self) -> bool:
        """Whether no step follows."""
        return self.step_index == len(self.plan.steps) - 1

    @property
    def active(self) -> bool:
        """Whether it has not ended."""
        return self.state not in ENDED

    @property
    def promotes(self) -> bool:
        """Whether its candidate becomes stable in the end."""
        return self.plan.steps[-1].is_final

    def may_return(self, now: float) -> bool:
        """Whether it has completed and the old stable version is still warm."""
        return (
            self.state is RolloutState.COMPLETED
            and self.promotes
            and self.warm_until is not None
            and now < self.warm_until
        )


_WORKING: Final = frozenset({RolloutState.STARTING, RolloutState.PREFLIGHT, *IN_TRAFFIC})

ALLOWED: Final[dict[Command, frozenset[RolloutState]]] = {
    Command.APPROVE: frozenset({RolloutState.AWAITING_WAIVER, RolloutState.AWAITING_APPROVAL}),
    Command.PROMOTE: frozenset(
        {RolloutState.BAKING, RolloutState.AWAITING_APPROVAL, RolloutState.FINAL}
    ),
    Command.PROMOTE_FULL: frozenset(
        {RolloutState.STARTING, RolloutState.PREFLIGHT, RolloutState.SHIFTING, RolloutState.BAKING,
         RolloutState.AWAITING_APPROVAL}
    ),
    Command.HOLD: _WORKING,
    Command.RESUME: _WORKING,
    Command.ABORT: frozenset({RolloutState.AWAITING_WAIVER, *_WORKING}),
    Command.ROLLBACK: frozenset({RolloutState.AWAITING_WAIVER, *_WORKING}),
}  # fmt: skip
"""States in which a person's command means something. Rollback is also taken from COMPLETED while the old
version is warm, and from ROLLING_BACK whatever its ending."""


def allowed(rollout: Rollout, command: Command, now: float) -> bool:
    """Whether *command* may be given now; what it needs besides (a reason, a second person) is not asked."""
    if command is Command.ROLLBACK and (
        rollout.may_return(now) or (rollout.state is RolloutState.ROLLING_BACK and not _is_rollback(rollout))
    ):
        return True
    if rollout.state not in ALLOWED[command]:
        return False
    if command is Command.HOLD:
        return OPERATOR not in rollout.holds
    if command is Command.RESUME:
        return OPERATOR in rollout.holds
    if command in (Command.PROMOTE, Command.PROMOTE_FULL, Command.APPROVE) and rollout.holds:
        return False
    return command is not Command.PROMOTE_FULL or _may_skip(rollout)


def _may_skip(rollout: Rollout) -> bool:
    """Whether there are steps ahead that could be skipped, and that is not asked for already."""
    if rollout.state in (RolloutState.STARTING, RolloutState.PREFLIGHT):
        return rollout.promotes and not rollout.full
    return rollout.promotes and not rollout.is_last_step


def apply(rollout: Rollout, command: Command, *, now: float, reason: str | None = None) -> Rollout:
    """The rollout after *command*. Raises ConflictError when its state does not allow it.

    Precedence lies in the states: what is rolling back can only be rolled back harder; abort and rollback are
    taken from every state that works, promote-full included; a hold stops everything that goes forward.
    """
    if not allowed(rollout, command, now):
        raise ConflictError(refusal(rollout, command), next_step="Look at its page for what can be done now.")
    moved = _EFFECTS[command](rollout, now)
    if command in (Command.ABORT, Command.ROLLBACK):
        moved = replace(moved, reason=reason or f"asked for: {command}", reason_code=command.value)
    return replace(moved, revision=rollout.revision + 1)


def refusal(rollout: Rollout, command: str) -> str:
    """Why *command* is not taken, in one sentence."""
    stands = f"the rollout of {rollout.candidate} to {rollout.endpoint} is {told(rollout)}"
    if rollout.holds and command in (Command.PROMOTE, Command.PROMOTE_FULL, Command.APPROVE):
        return f"{stands}: resume it first"
    return f"{command} means nothing now: {stands}"


def told(rollout: Rollout) -> str:
    """The state in words: `held at step 2 of 6 (10 %)`."""
    words = rollout.state.value.replace("_", " ")
    if rollout.state not in IN_TRAFFIC:
        return words
    at = f"step {rollout.step_index + 1} of {len(rollout.plan.steps)} ({rollout.weight:.0%})"
    return f"held at {at}" if rollout.holds else f"{words} at {at}"


# --- what the controller does beside people's commands; each returns the next value with a new revision ---


def started(rollout: Rollout, now: float) -> Rollout:
    """The candidate is ready beside stable: the gates run."""
    return _enter(rollout, RolloutState.PREFLIGHT, now)


def gates_passed(rollout: Rollout, now: float) -> Rollout:
    """The gates are passed or waived: the first step, or the last one when that was asked for."""
    index = len(rollout.plan.steps) - 1 if rollout.full else 0
    return _to_step(rollout, index, now)


def confirmed(rollout: Rollout, now: float) -> Rollout:
    """The gateway has confirmed the step's weight: bake."""
    state = RolloutState.FINAL if rollout.step.is_final else RolloutState.BAKING
    return _enter(rollout, state, now)


def advanced(rollout: Rollout, now: float) -> Rollout:
    """The step has proven itself: the next one, a person's approval before it, or the end."""
    needs_person = rollout.step.approval or not rollout.plan.auto_advance
    if needs_person and rollout.state is RolloutState.BAKING and not rollout.is_last_step:
        return _enter(rollout, RolloutState.AWAITING_APPROVAL, now)
    return _forward(rollout, now)


def rolling_back(
    rollout: Rollout, now: float, *, reason: str, code: str, ending: RolloutState = RolloutState.ROLLED_BACK
) -> Rollout:
    """Give every request back to stable, for *reason*."""
    moved = _return(rollout, now, ending)
    return replace(moved, reason=reason, reason_code=code, revision=rollout.revision + 1)


def ended(rollout: Rollout, now: float) -> Rollout:
    """Stable has every request again: it is over; the candidate stays for a while to be looked at."""
    state = rollout.ending or RolloutState.ROLLED_BACK
    kept = rollout.plan.debug_s if state is RolloutState.ROLLED_BACK else 0.0
    return replace(_enter(rollout, state, now), warm_until=now + kept if kept else None, ending=None)


def closed(rollout: Rollout) -> Rollout:
    """What was kept warm may go."""
    return replace(rollout, warm_until=None, revision=rollout.revision + 1)


def cut_short(rollout: Rollout, now: float, *, reason: str, code: str, ending: RolloutState) -> Rollout:
    """End an active one at once, keeping nothing warm: for when its endpoint no longer needs a way back.

    One that was rolling back already ends as it was going to.
    """
    back = rollout
    if rollout.state is not RolloutState.ROLLING_BACK:
        back = rolling_back(rollout, now, reason=reason, code=code, ending=ending)
    return replace(ended(back, now), warm_until=None, revision=rollout.revision + 1)


def extended(rollout: Rollout, seconds: float) -> Rollout:
    """Bake *seconds* longer at the step it is at. Raises InvalidInputError beyond the longest bake."""
    longer = replace(rollout.step, bake_s=rollout.step.bake_s + seconds)
    index = rollout.step_index
    steps = (*rollout.plan.steps[:index], longer, *rollout.plan.steps[index + 1 :])
    plan = check_plan(replace(rollout.plan, steps=steps))
    return replace(rollout, plan=plan, revision=rollout.revision + 1)


def _enter(rollout: Rollout, state: RolloutState, now: float) -> Rollout:
    return replace(rollout, state=state, entered_at=now, revision=rollout.revision + 1)


def _to_step(rollout: Rollout, index: int, now: float) -> Rollout:
    step = rollout.plan.steps[index]
    moved = replace(
        rollout, step_index=index, weight=step.weight, mirror=step.mirror, baked_s=0.0, step_requests=0
    )
    return _enter(moved, RolloutState.SHIFTING, now)


def _forward(rollout: Rollout, now: float) -> Rollout:
    if not rollout.is_last_step:
        return _to_step(rollout, rollout.step_index + 1, now)
    warm = rollout.plan.warm_s if rollout.promotes else 0.0
    done = replace(rollout, warm_until=now + warm if warm else None, mirror=0.0)
    reason = f"{rollout.candidate} is stable now" if rollout.promotes else "the comparison is done"
    return replace(
        _enter(done, RolloutState.COMPLETED, now), weight=done.weight if rollout.promotes else 0.0,
        reason=reason, reason_code="completed",
    )  # fmt: skip


def _return(rollout: Rollout, now: float, ending: RolloutState) -> Rollout:
    back = replace(rollout, weight=0.0, mirror=0.0, ending=ending, warm_until=None, full=False)
    return _enter(back, RolloutState.ROLLING_BACK, now)


def _is_rollback(rollout: Rollout) -> bool:
    return rollout.ending is RolloutState.ROLLED_BACK


def _approve(rollout: Rollout, now: float) -> Rollout:
    if rollout.state is RolloutState.AWAITING_WAIVER:
        return _enter(rollout, RolloutState.STARTING, now)
    return _forward(rollout, now)


def _promote_full(rollout: Rollout, now: float) -> Rollout:
    if rollout.state in (RolloutState.STARTING, RolloutState.PREFLIGHT):
        return replace(rollout, full=True)
    return _to_step(rollout, len(rollout.plan.steps) - 1, now)


def _abort(rollout: Rollout, now: float) -> Rollout:
    return _return(rollout, now, RolloutState.ABORTED)


def _rollback(rollout: Rollout, now: float) -> Rollout:
    return _return(rollout, now, RolloutState.ROLLED_BACK)


def _hold(rollout: Rollout, _now: float) -> Rollout:
    return replace(rollout, holds=rollout.holds | {OPERATOR})


def _resume(rollout: Rollout, _now: float) -> Rollout:
    return replace(rollout, holds=rollout.holds - {OPERATOR})


_EFFECTS: Final = {
    Command.APPROVE: _approve,
    Command.PROMOTE: _forward,
    Command.PROMOTE_FULL: _promote_full,
    Command.HOLD: _hold,
    Command.RESUME: _resume,
    Command.ABORT: _abort,
    Command.ROLLBACK: _rollback,
}


def default_steps(strategy: Strategy, *, bake_s: float = DEFAULT_BAKE_S) -> tuple[Step, ...]:
    """The usual steps of a strategy."""
    if strategy is Strategy.CANARY:
        return canary_steps(DEFAULT_WEIGHTS, bake_s=bake_s)
    if strategy is Strategy.BLUE_GREEN:
        return (
            Step(weight=0.0, bake_s=0.0, min_requests=0),
            Step(weight=1.0, bake_s=bake_s, min_requests=0),
        )
    return (Step(weight=0.0, mirror=DEFAULT_MIRROR, bake_s=bake_s),)


def canary_steps(weights: tuple[float, ...], *, bake_s: float = DEFAULT_BAKE_S) -> tuple[Step, ...]:
    """One step a weight; a last step of 1.0 is added where it lacks."""
    whole = weights if weights and weights[-1] == 1.0 else (*weights, 1.0)
    return tuple(Step(weight=weight, bake_s=bake_s) for weight in whole)


def check_plan(plan: Plan) -> Plan:
    """Return *plan* if it makes sense. Raises InvalidInputError."""
    steps = plan.steps
    if not 1 <= len(steps) <= MAX_STEPS:
        raise InvalidInputError(f"a rollout has from 1 to {MAX_STEPS} steps, not {len(steps)}")
    for step in steps:
        _check_step(step)
    weights = [step.weight for step in steps]
    if any(later < earlier for earlier, later in itertools.pairwise(weights)):
        raise InvalidInputError(
            "the steps' weights must not fall", next_step="Sort them, e.g. 0.05, 0.25, 1.0."
        )
    if any(step.is_final for step in steps[:-1]):
        raise InvalidInputError("only the last step may have weight 1.0")
    if plan.strategy is Strategy.SHADOW and any(step.weight > 0 for step in steps):
        raise InvalidInputError(
            "a shadow rollout sends copies only",
            next_step="Use the canary strategy with a mirrored first step.",
        )
    if plan.strategy is not Strategy.SHADOW and not steps[-1].is_final:
        raise InvalidInputError("the last step must have weight 1.0")
    for name in ("start_deadline_s", "shift_deadline_s", "warm_s", "debug_s"):
        _check_range(name, getattr(plan, name), 0.0, MAX_BAKE_S)
    return plan


def _check_step(step: Step) -> None:
    _check_range("weight", step.weight, 0.0, 1.0)
    _check_range("mirror", step.mirror, 0.0, 1.0)
    _check_range("bake_s", step.bake_s, 0.0, MAX_BAKE_S)
    _check_range("min_requests", step.min_requests, 0, 10**9)
    if step.weight > 0 and step.mirror > 0:
        raise InvalidInputError("a step either sends requests to the candidate or copies, not both")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # not a number is in no range
        raise InvalidInputError(f"{name} must be from {low:g} to {high:g}, not {value:g}")
