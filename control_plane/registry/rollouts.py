"""Queries about rollouts, and their rows as values."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, case, func, or_, select
from sqlalchemy.orm import Session

from control_plane.domain.rollout import ENDED, Plan, Rollout, RolloutState
from control_plane.registry.tables import Json
from control_plane.registry.tables import Rollout as Row

_STORED = (
    "step_index", "weight", "mirror", "entered_at", "baked_s", "step_requests", "revision", "warm_until",
    "reason", "reason_code", "full",
)  # fmt: skip
"""Fields that a row holds as the value does."""
ROLLED_BACK_COLD = "rolled-back-cold"
"""Reason code of a completed rollout whose endpoint went back after the rollback window."""


def value_of(row: Row) -> Rollout:
    """*row* as the decisions see it."""
    return Rollout(
        id=row.id,
        endpoint=row.endpoint,
        stable=row.stable.ref,
        candidate=row.candidate.ref,
        plan=msgspec.convert(row.plan, Plan),
        state=RolloutState(row.state),
        holds=frozenset(row.holds),
        ending=RolloutState(row.ending) if row.ending else None,
        created_by=row.created_by,
        created_at=row.created_at,
        **{name: getattr(row, name) for name in _STORED},
    )


def write(row: Row, rollout: Rollout) -> None:
    """Make *row* hold *rollout*; its versions, plan and origin never change."""
    for name in _STORED:
        setattr(row, name, getattr(rollout, name))
    row.state = rollout.state
    row.holds = sorted(rollout.holds)
    row.ending = rollout.ending
    row.ended_at = rollout.entered_at if rollout.state in ENDED else None


def plan_json(plan: Plan) -> Json:
    """*plan* as a row holds it."""
    stored: Json = msgspec.to_builtins(asdict(plan))
    return stored


def find(session: Session, rollout_id: str) -> Row | None:
    """The rollout with that id."""
    return session.get(Row, rollout_id)


def locked(session: Session, rollout_id: str) -> Row | None:
    """The rollout, locked until the transaction ends."""
    return session.scalar(select(Row).where(Row.id == rollout_id).with_for_update(of=Row))


def newest_first() -> tuple[ColumnElement[Any], ...]:
    """Order of one endpoint's rollouts: the one that stands, the one that keeps a version warm, the newest.

    Times alone would not do: after the clock was set back, one that has ended is newer than one that stands.
    """
    need = case((Row.state.not_in(ENDED), 0), (Row.warm_until.is_not(None), 1), else_=2)
    return need, Row.created_at.desc(), Row.id.asc()


def latest(session: Session, endpoint: str) -> Row | None:
    """The endpoint's newest rollout, ended or not; one that stands is the newest whatever the clock said."""
    return session.scalar(select(Row).where(Row.endpoint == endpoint).order_by(*newest_first()).limit(1))


def standing(session: Session) -> Sequence[Row]:
    """Rollouts the controller has to do with: those that have not ended, or that keep a version warm."""
    query = select(Row).where(or_(Row.state.not_in(ENDED), Row.warm_until.is_not(None)))
    return session.scalars(query.order_by(Row.created_at, Row.id)).all()


def page(
    session: Session,
    *,
    endpoint: str | None = None,
    states: Collection[str] = (),
    offset: int = 0,
    limit: int = 50,
) -> tuple[Sequence[Row], int]:
    """Rollouts newest first, and how many there are."""
    query = select(Row)
    if endpoint is not None:
        query = query.where(Row.endpoint == endpoint)
    if states:
        query = query.where(Row.state.in_(states))
    total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    rows = session.scalars(query.order_by(Row.created_at.desc(), Row.id).offset(offset).limit(limit))
    return rows.all(), total


def counts(session: Session) -> dict[str, int]:
    """How many rollouts are in each state."""
    found = session.execute(select(Row.state, func.count()).group_by(Row.state))
    return {row[0]: row[1] for row in found}


def has_completed(session: Session, endpoint: str, version_id: str) -> bool:
    """Whether the version has become stable by a rollout on that endpoint, and was not rolled back since.

    A shadow rollout sends the version no requests, so it does not count.
    """
    query = select(Row).where(
        Row.endpoint == endpoint,
        Row.candidate_version_id == version_id,
        Row.state == RolloutState.COMPLETED,
    )
    return any(
        row.reason_code != ROLLED_BACK_COLD and value_of(row).promotes for row in session.scalars(query)
    )
