"""Where a rollout stands and what somebody did to it, in sentences for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from control_plane.domain.rollout import ENDED, IN_TRAFFIC, Command, Rollout, RolloutState

HOLDABLE: Final = frozenset({RolloutState.STARTING, RolloutState.PREFLIGHT, *IN_TRAFFIC})
"""States in which a hold means something."""
_SIMPLE: Final = {
    Command.HOLD: "held",
    Command.RESUME: "resumed",
    Command.ABORT: "aborted",
}


def sentence(rollout: Rollout, verdict: Mapping[str, Any], frozen: str | None) -> str:
    """Where it stands. verdict: the latest one as JSON, or empty; frozen: the freeze that holds it."""
    stands = _ended(rollout) if rollout.state in ENDED else _working(rollout)
    if frozen and rollout.state in HOLDABLE:
        return f"{frozen}; {stands}"
    if rollout.holds and rollout.state in HOLDABLE:
        return f"held by a person; {stands}"
    if rollout.state in IN_TRAFFIC and verdict.get("sentence"):
        return f"{stands}; {verdict['sentence']}"
    return stands


def did(before: Rollout, after: Rollout, command: Command, actor: str, reason: str | None) -> str:
    """What *actor* did to *before*, which became *after*."""
    told = f": {reason}" if reason else ""
    return f"{actor} {_did(before, after, command)}{told}"


def percent(share: float) -> str:
    """A share in [0, 1] as people read it: `12.5 %`."""
    return f"{share * 100:.3g} %"


def _did(before: Rollout, after: Rollout, command: Command) -> str:
    what = f"the rollout of {before.candidate} to {before.endpoint}"
    if command in _SIMPLE:
        return f"{_SIMPLE[command]} {what}"
    if command is Command.ROLLBACK:
        return f"rolled back {what}: {before.stable} is to answer every request again"
    if before.state is RolloutState.AWAITING_WAIVER:
        return f"approved {what} as its second person"
    if after.state is RolloutState.COMPLETED:
        return f"ended the bake of {what}: {after.reason}"
    if after.state is not RolloutState.SHIFTING:
        return f"asked {what} to skip its steps once the candidate is ready"
    number, count = after.step_index + 1, len(after.plan.steps)
    verb = "approved" if command is Command.APPROVE else "promoted"
    return f"{verb} {what} to step {number} of {count} ({percent(after.weight)})"


def _working(rollout: Rollout) -> str:
    candidate = rollout.candidate
    match rollout.state:
        case RolloutState.AWAITING_WAIVER:
            return f"{candidate} waits for a second person to approve that {_waived(rollout)}"
        case RolloutState.STARTING:
            return f"agents of {candidate} start beside {rollout.stable}; it gets no requests yet"
        case RolloutState.PREFLIGHT:
            return f"the gates run against {candidate}; it gets no requests yet"
        case RolloutState.SHIFTING:
            return f"{_share(rollout)}, as soon as the gateway confirms"
        case RolloutState.AWAITING_APPROVAL:
            return f"{_share(rollout)}; it has proven itself there, and a person lets it go on"
        case RolloutState.ROLLING_BACK:
            goal = f"{rollout.stable} answers every request of {rollout.endpoint} again"
            return f"waits until {goal}{_because(rollout)}"
        case _:
            return f"{_share(rollout)}{_bake(rollout)}"


def _ended(rollout: Rollout) -> str:
    if rollout.state in (RolloutState.COMPLETED, RolloutState.SUPERSEDED):
        return rollout.reason or rollout.state.value
    word = rollout.state.value.replace("_", " ")
    return f"{word}{_because(rollout)}; {rollout.stable} serves {rollout.endpoint}"


def _because(rollout: Rollout) -> str:
    return f": {rollout.reason}" if rollout.reason else ""


def _waived(rollout: Rollout) -> str:
    left_out = f"the gates are left out ({rollout.plan.skip_gates})" if rollout.plan.skip_gates else ""
    broken = f"a freeze is broken ({rollout.plan.break_freeze})" if rollout.plan.break_freeze else ""
    return " and ".join(part for part in (left_out, broken) if part)


def _share(rollout: Rollout) -> str:
    at = f"step {rollout.step_index + 1} of {len(rollout.plan.steps)}"
    if rollout.mirror > 0:
        return f"{rollout.candidate} gets copies of {percent(rollout.mirror)} of the requests ({at})"
    return f"{rollout.candidate} gets {percent(rollout.weight)} of the requests ({at})"


def _bake(rollout: Rollout) -> str:
    left = rollout.step.bake_s - rollout.baked_s
    return f", {left:.0f} s of its bake are left" if left > 0 else ", its bake is over"
