"""Queries about what happened to a rollout: its events, and the answers that differed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from control_plane.domain.rollout import ENDED
from control_plane.registry.rollouts import newest_first
from control_plane.registry.tables import Disagreement, Event, Json, Version
from control_plane.registry.tables import Rollout as Row


def events(session: Session, row: Row, *, offset: int, limit: int) -> tuple[Sequence[Event], int]:
    """Events of the rollout, newest first, and how many there are."""
    total = session.scalar(select(func.count()).select_from(_events(row).subquery())) or 0
    query = _events(row).order_by(Event.at.desc(), Event.id.desc())
    return session.scalars(query.offset(offset).limit(limit)).all(), total


def last_event(session: Session, row: Row) -> Event | None:
    """The newest event of the rollout."""
    return session.scalar(_events(row).order_by(Event.at.desc(), Event.id.desc()).limit(1))


def disagreements(session: Session, rollout_id: str, *, limit: int) -> Sequence[Disagreement]:
    """Requests that both versions answered differently, the farthest apart first."""
    query = select(Disagreement).where(Disagreement.rollout_id == rollout_id)
    return session.scalars(query.order_by(Disagreement.distance.desc(), Disagreement.id).limit(limit)).all()


def lock_newest(session: Session, endpoint: str) -> None:
    """Lock the endpoint's newest rollout until the transaction ends, without reading it or its versions."""
    newest = select(Row.id).where(Row.endpoint == endpoint).order_by(*newest_first())
    session.execute(newest.limit(1).with_for_update())


def newest_ids(session: Session, endpoints: Collection[str]) -> frozenset[str]:
    """Ids of the newest rollouts of those endpoints, as `rollouts.latest` finds them."""
    rank = func.row_number().over(partition_by=Row.endpoint, order_by=newest_first())
    ranked = select(Row.id, rank.label("rank")).where(Row.endpoint.in_(endpoints)).subquery()
    return frozenset(session.scalars(select(ranked.c.id).where(ranked.c.rank == 1)))


def of_version(session: Session, version_id: str, *, standing: bool) -> Row | None:
    """Some rollout of the version, as candidate or as stable, the newest; standing: only ones not ended."""
    query = select(Row).where(
        or_(Row.candidate_version_id == version_id, Row.stable_version_id == version_id)
    )
    if standing:
        query = query.where(or_(Row.state.not_in(ENDED), Row.warm_until.is_not(None)))
    return session.scalar(query.order_by(Row.created_at.desc()).limit(1))


def captured_inputs(session: Session, model_id: str, *, limit: int) -> list[Json]:
    """Inputs of kept requests to versions of a model, newest first; those that were not kept are left out.

    Each is {name: nested list with the batch dimension}.
    """
    query = (
        select(Disagreement.inputs)
        .join(Row, Row.id == Disagreement.rollout_id)
        .join(Version, Version.id == Row.candidate_version_id)
        .where(Version.model_id == model_id, Disagreement.inputs.is_not(None))
        .order_by(Disagreement.at.desc(), Disagreement.id)
        .limit(limit)
    )
    return [inputs for inputs in session.scalars(query) if inputs]


def _events(row: Row) -> Select[Event]:
    return select(Event).where(
        Event.subject == f"endpoint/{row.endpoint}",
        Event.details["rollout"].as_string() == row.id,
    )
