"""Queries about golden sets."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from control_plane.registry.tables import GoldenSet, Model


def find(session: Session, model_id: str, digest: str) -> GoldenSet | None:
    """The model's golden set with that digest."""
    query = select(GoldenSet).where(GoldenSet.model_id == model_id, GoldenSet.digest == digest)
    return session.scalar(query)


def starting_with(session: Session, model_id: str, prefix: str, limit: int) -> Sequence[GoldenSet]:
    """The model's golden sets whose digest starts with *prefix*, oldest first."""
    query = select(GoldenSet).where(
        GoldenSet.model_id == model_id, GoldenSet.digest.startswith(prefix, autoescape=True)
    )
    return session.scalars(query.order_by(GoldenSet.created_at, GoldenSet.id).limit(limit)).all()


def page(session: Session, *, model: str | None, offset: int, limit: int) -> tuple[Sequence[GoldenSet], int]:
    """Golden sets newest first, and how many there are in all."""
    query = select(GoldenSet)
    if model is not None:
        query = query.join(Model).where(Model.name == model)
    total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    rows = session.scalars(
        query.order_by(GoldenSet.created_at.desc(), GoldenSet.id).offset(offset).limit(limit)
    )
    return rows.all(), total
