"""What people ask of a rollout that is there: who may, when, and what is written.

Rolling back is never refused while there is anything to roll back: it needs no reason, no second person, and
does not depend on what the caller saw last.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from sqlalchemy.orm import Session

from control_plane.domain import freeze
from control_plane.domain import rollout as moves
from control_plane.domain.endpoint import EndpointGoal
from control_plane.domain.goal import Wish
from control_plane.domain.rollout import Command, Rollout, RolloutState, VerdictKind
from control_plane.domain.verdict import refusal
from control_plane.errors import ConflictError, InvalidInputError, NotFoundError
from control_plane.registry import endpoints, freeze_windows, rollout_history, rollout_moves, rollouts
from control_plane.registry import session as sessions
from control_plane.registry.tables import Endpoint
from control_plane.registry.tables import Rollout as Row
from control_plane.services import goals, rollout_words, versions
from control_plane.services.context import Context
from control_plane.services.rollout_plans import reason_given

FORWARD: Final = frozenset({Command.APPROVE, Command.PROMOTE, Command.PROMOTE_FULL})
"""Commands that a freeze refuses."""
_SAFE: Final = frozenset({Command.ABORT, Command.ROLLBACK})
"""Commands that mean the same whatever step the rollout is at."""
_OVERRIDES: Final = frozenset({Command.PROMOTE, Command.PROMOTE_FULL})
_ACTIONS: Final = {
    Command.APPROVE: "rollout.approved",
    Command.PROMOTE: "rollout.promoted",
    Command.PROMOTE_FULL: "rollout.promoted",
    Command.HOLD: "rollout.held",
    Command.RESUME: "rollout.resumed",
    Command.ABORT: "rollout.aborted",
    Command.ROLLBACK: "rollout.rollback_requested",
}
_MIN_EXTEND_S: Final = 1.0


def carry_out(
    ctx: Context,
    which: str,
    command: Command,
    *,
    actor: str,
    reason: str | None,
    expected_step: int | None,
    expected_revision: int | None,
) -> str:
    """Apply *command* in one transaction and return the rollout's id. Raises as `rollouts.act` does."""
    why = reason_given(reason or None, str(command))
    with sessions.write(ctx.engine) as session:
        row = _locked(session, which)
        rollout, now = rollouts.value_of(row), time.time()
        if command not in _SAFE:
            _check_expected(session, row, rollout, expected_step, expected_revision, now)
        if command is Command.ROLLBACK and _returns_already(rollout):
            return row.id
        if command is Command.ROLLBACK and _returns_cold(session, row, rollout, now):
            _return_cold(ctx, session, row, rollout, actor, why, now)
            return row.id
        _check_may(ctx, session, row, rollout, command, actor, why, now)
        after = moves.apply(rollout, command, now=now, reason=why)
        rollout_moves.record(
            session,
            row,
            rollout,
            after,
            actor=actor,
            action=_ACTIONS[command],
            message=rollout_words.did(rollout, after, command, actor, why),
            at=now,
            protected_aliases=ctx.settings.protected_aliases,
        )
        return row.id


def extend(
    ctx: Context,
    which: str,
    seconds: float,
    *,
    actor: str,
    expected_step: int | None,
    expected_revision: int | None,
) -> str:
    """Let the present step bake *seconds* longer; returns the rollout's id."""
    if not _MIN_EXTEND_S <= seconds <= moves.MAX_BAKE_S:
        raise InvalidInputError(f"seconds must be from {_MIN_EXTEND_S:g} to {moves.MAX_BAKE_S:g}")
    with sessions.write(ctx.engine) as session:
        row = _locked(session, which)
        rollout, now = rollouts.value_of(row), time.time()
        _check_expected(session, row, rollout, expected_step, expected_revision, now)
        if rollout.state not in (RolloutState.SHIFTING, RolloutState.BAKING, RolloutState.FINAL):
            raise ConflictError(moves.refusal(rollout, "a longer bake"), next_step="Look at its page.")
        after = moves.extended(rollout, seconds)
        message = f"{actor} let step {rollout.step_index + 1} bake {seconds:g} s longer"
        rollout_moves.record(
            session, row, rollout, after, actor=actor, action="rollout.bake_extended", message=message, at=now
        )
        row.plan = rollouts.plan_json(after.plan)
        return row.id


def resolve(session: Session, which: str) -> Row:
    """The rollout with that id, or the newest one of the endpoint called so. Raises NotFoundError."""
    row = rollouts.find(session, which) or rollouts.latest(session, which)
    if row is None:
        raise NotFoundError(
            f"There is no rollout {which[:80]!r}, and no rollout of an endpoint with that name",
            next_step="See `signalbox rollout list`.",
        )
    return row


def needs_new_agents(rollout: Rollout, row: Row, endpoint: Endpoint | None, now: float) -> bool:
    """Whether rolling back the endpoint's newest rollout means to deploy the old version anew."""
    return (
        rollout.state is RolloutState.COMPLETED
        and rollout.promotes
        and not rollout.may_return(now)
        and endpoint is not None
        and endpoint.goal == EndpointGoal.RUNNING
        and endpoint.version_id == row.candidate_version_id
    )


def has_failed(row: Row) -> bool:
    """Whether the latest verdict is FAIL: nothing goes forward from there."""
    return row.verdict is not None and row.verdict["kind"] == VerdictKind.FAIL


def frozen(rollout: Rollout, windows: Iterable[freeze.Window], now: float) -> str | None:
    """The freeze window that keeps *rollout* from going forward, in one sentence."""
    if rollout.plan.break_freeze is not None or not rollout.active:
        return None
    window = freeze.active(windows, rollout.endpoint, now)
    return None if window is None else f"{rollout.endpoint} is {freeze.told(window, now)}"


def _returns_cold(session: Session, row: Row, rollout: Rollout, now: float) -> bool:
    is_newest = row.id in rollout_history.newest_ids(session, [row.endpoint])
    return is_newest and needs_new_agents(rollout, row, endpoints.find(session, row.endpoint), now)


def _locked(session: Session, which: str) -> Row:
    found = resolve(session, which)
    sessions.lock(session, goals.subject(found.endpoint))
    session.expire(found)
    row = rollouts.locked(session, found.id)
    if row is None:
        raise NotFoundError(f"There is no rollout {which[:80]!r}")
    return row


def _check_expected(
    session: Session, row: Row, rollout: Rollout, step: int | None, revision: int | None, now: float
) -> None:
    """Refuse what was meant for another step or revision. step: from 1."""
    if step in (None, rollout.step_index + 1) and revision in (None, rollout.revision):
        return
    last = rollout_history.last_event(session, row)
    who = f", moved by {last.actor} {goals.ago(now - last.at)}: {last.message}" if last else ""
    raise ConflictError(
        f"the rollout moved on: it is {moves.told(rollout)}{who}",
        next_step="Look at where it is now and repeat it if you still want it.",
        rollout=row.id,
        state=row.state,
        step=rollout.step_index + 1,
        revision=rollout.revision,
        moved_by=last.actor if last else None,
        moved_at=last.at if last else None,
    )


def _returns_already(rollout: Rollout) -> bool:
    return rollout.state is RolloutState.ROLLING_BACK and rollout.ending is RolloutState.ROLLED_BACK


def _check_may(
    ctx: Context,
    session: Session,
    row: Row,
    rollout: Rollout,
    command: Command,
    actor: str,
    reason: str | None,
    now: float,
) -> None:
    """Raise when *command* means something here, but not like this: the state itself is judged by `apply`."""
    if not moves.allowed(rollout, command, now):
        return
    window = frozen(rollout, freeze_windows.near(session, now), now) if command in FORWARD else None
    if window is not None:
        raise ConflictError(f"{command} is refused: {window}", next_step="Wait until then.")
    if command is Command.APPROVE and rollout.state is RolloutState.AWAITING_WAIVER:
        _need_second(ctx, rollout, actor, "leaving out gates or breaking a freeze")
    if command in FORWARD:
        _refuse_failed(row, command)
    if command in _OVERRIDES and _is_judged(rollout, command):
        _need_pass(row, command, reason, oldest=now - ctx.settings.rollout_stale_s)


def _is_judged(rollout: Rollout, command: Command) -> bool:
    """Whether going on overrides a verdict: a preview without requests has none to wait for."""
    return command is Command.PROMOTE_FULL or rollout.step.measures


def _refuse_failed(row: Row, command: Command) -> None:
    """Refuse to go on against a FAIL, however old: the controller rolls back by it in its next tick."""
    if row.verdict is not None and has_failed(row):
        raise ConflictError(
            f"{command} is refused: the verdict is FAIL, which rolls it back: {row.verdict['sentence']}",
            next_step="If that is a false alarm, start it again with a guardrail that bears the difference.",
            verdict=row.verdict["kind"],
        )


def _need_pass(row: Row, command: Command, reason: str | None, *, oldest: float) -> None:
    """Ask for a reason unless the verdict is PASS. oldest: what was given before that time counts as none."""
    verdict = row.verdict or {}
    kind, is_fresh = verdict.get("kind"), verdict.get("at", oldest) >= oldest
    if reason is not None or (kind == VerdictKind.PASS and is_fresh):
        return
    said = "has not been given" if kind is None else f"is {kind}" if is_fresh else "is too old"
    raise ConflictError(
        f"the verdict {said}, so {command} needs a reason",
        next_step="Give one, or wait for the evidence.",
        verdict=kind if is_fresh else None,
    )


def _need_second(ctx: Context, rollout: Rollout, actor: str, what: str) -> None:
    if ctx.settings.four_eyes and _person(actor) == _person(rollout.created_by):
        raise ConflictError(
            f"{what} needs a second person, and {rollout.created_by} started this rollout",
            next_step="Ask somebody else to do it.",
            created_by=rollout.created_by,
        )


def _person(actor: str) -> str:
    """*actor* as names are compared: `Ana` is `ana`."""
    return actor.strip().casefold()


def _return_cold(
    ctx: Context, session: Session, row: Row, rollout: Rollout, actor: str, reason: str | None, now: float
) -> None:
    """Deploy the old stable version anew: its agents are gone by now."""
    was_archived = _make_deployable(session, row, rollout, actor)
    goals.deploy(
        ctx,
        session,
        row.endpoint,
        rollout.stable,
        Wish(handler=row.stable_handler),
        actor=actor,
        returning=True,
    )
    versions.follow_protected(
        session, row.candidate, row.stable, actor=actor, aliases=ctx.settings.protected_aliases
    )
    told = f": {reason}" if reason else ""
    rollout_moves.returned_cold(
        session,
        row,
        actor=actor,
        action=_ACTIONS[Command.ROLLBACK],
        message=f"{actor} rolled {row.endpoint} back to {rollout.stable}, {was_archived}which is no longer "
        f"warm: new agents of it start first, and {rollout.candidate} goes on serving until they are "
        f"ready{told}",
        reason=f"{actor} rolled {row.endpoint} back to {rollout.stable} after the rollback window{told}",
        at=now,
    )


def _make_deployable(session: Session, row: Row, rollout: Rollout, actor: str) -> str:
    """Restore the old stable version if it was archived, and say so. Raises ConflictError when refused."""
    stable = versions.find(session, rollout.stable, lock=True)
    session.refresh(stable, ["archived_at", "verdict"])  # the rollout read it before it was locked
    refused = refusal(stable.ref, stable.verdict)
    if refused:
        raise ConflictError(
            f"{row.endpoint} cannot be rolled back to {stable.ref}: {refused}",
            next_step="Deploy a version that the gate lets through: "
            f"`signalbox deploy {row.endpoint} MODEL@N`.",
        )
    return "which was archived, and " if versions.restore_found(session, stable, actor=actor) else ""
