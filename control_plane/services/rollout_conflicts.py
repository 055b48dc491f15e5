"""What a standing rollout means for other changes of its endpoint.

A change of what is served is refused, scaling is not; stopping or deleting the endpoint ends the rollout
in the same transaction. Callers hold the endpoint's lock (see `sessions.lock`).
"""

from __future__ import annotations

from typing import Final

from sqlalchemy.orm import Session

from control_plane.config import Settings
from control_plane.domain import rollout as moves
from control_plane.domain.rollout import ENDED, Rollout, RolloutState
from control_plane.errors import ConflictError
from control_plane.registry import rollout_history, rollout_moves, rollouts
from control_plane.registry.tables import Rollout as Row

WINDOW_CLOSED: Final = "rollout.window_closed"
"""Action of the event that nothing is kept warm any more."""


def standing(session: Session, endpoint: str) -> Row | None:
    """The endpoint's rollout that has not ended, locked until the transaction ends."""
    row = _latest(session, endpoint)
    return row if row is not None and row.state not in ENDED else None


def lock(session: Session, endpoint: str) -> None:
    """Lock the endpoint's last rollout until the transaction ends.

    Whoever changes both locks the rollout before the endpoint, as the controller does.
    """
    rollout_history.lock_newest(session, endpoint)


def link(row: Row) -> str:
    """Page and query that shows the rollout."""
    return f"/rollouts?id={row.id}"


def refusal(row: Row, wanted: str) -> ConflictError:
    """Why *wanted* has to wait for the standing rollout *row*, which the error names."""
    rollout = rollouts.value_of(row)
    supersede = f"`signalbox rollout start {row.endpoint} MODEL@N --supersede`"
    if rollout.state is RolloutState.ROLLING_BACK:
        stands = f"rolling back, and waits until a ready agent of {rollout.stable} answers every request"
        next_step = f"Wait for that, or put another rollout in its place with {supersede}."
    else:
        stands = moves.told(rollout)
        next_step = (
            f"Abort it (`signalbox rollout abort {row.endpoint}`), wait for its end, or put another "
            f"in its place with {supersede}."
        )
    return ConflictError(
        f"{wanted} has to wait: a rollout of {rollout.candidate} to {row.endpoint} is {stands}",
        next_step=next_step,
        rollout=row.id,
        link=link(row),
        state=row.state,
    )


def refuse(session: Session, endpoint: str, wanted: str) -> None:
    """Raise ConflictError when a rollout stands at the endpoint."""
    row = standing(session, endpoint)
    if row is not None:
        raise refusal(row, wanted)


def end_with_endpoint(
    session: Session, settings: Settings, endpoint: str, *, actor: str, why: str, at: float
) -> None:
    """Abort the endpoint's rollout as the endpoint ends, and keep nothing warm. why: `ana stopped it`."""
    row = standing(session, endpoint)
    if row is None:
        close_window(session, endpoint, actor=actor, why=why, at=at)
        return
    before = rollouts.value_of(row)
    after = moves.cut_short(before, at, reason=why, code="abort", ending=RolloutState.ABORTED)
    message = f"{actor} ended the rollout of {before.candidate} to {endpoint}: {why}"
    rollout_moves.record(
        session, row, before, after, actor=actor, action="rollout.aborted", message=message, at=at,
        protected_aliases=settings.protected_aliases,
    )  # fmt: skip


def supersede(session: Session, row: Row, *, candidate: str, actor: str, at: float) -> None:
    """End the standing rollout *row* at once: *candidate* takes its place, against the same stable one."""
    before = rollouts.value_of(row)
    reason = f"superseded by the rollout of {candidate}"
    after = moves.cut_short(before, at, reason=reason, code="superseded", ending=RolloutState.SUPERSEDED)
    message = f"{actor} put a rollout of {candidate} in place of that of {before.candidate} to {row.endpoint}"
    rollout_moves.record(
        session, row, before, after, actor=actor, action="rollout.superseded", message=message, at=at
    )


def close_window(session: Session, endpoint: str, *, actor: str, why: str, at: float) -> bool:
    """Let go of what the endpoint's last rollout keeps warm; whether there was anything."""
    row = _latest(session, endpoint)
    if row is None or row.state not in ENDED or row.warm_until is None:
        return False
    before = rollouts.value_of(row)
    message = f"{_kept(before)} is no longer kept warm for {endpoint}: {why}"
    rollout_moves.record(
        session, row, before, moves.closed(before), actor=actor, action=WINDOW_CLOSED, message=message, at=at
    )
    return True


def _kept(rollout: Rollout) -> str:
    return rollout.stable if rollout.state is RolloutState.COMPLETED else rollout.candidate


def _latest(session: Session, endpoint: str) -> Row | None:
    row = rollouts.latest(session, endpoint)
    if row is None:
        return None
    session.expire(row)  # what waiting for the lock let others change is read anew
    return rollouts.locked(session, row.id)
