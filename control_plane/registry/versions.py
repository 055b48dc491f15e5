"""Queries about models, versions, aliases and artefacts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Select, func, or_, select, tuple_, union_all
from sqlalchemy.orm import Session, defer, joinedload, lazyload

from control_plane.domain.names import VersionRef
from control_plane.registry.tables import Alias, Artifact, Endpoint, Model, Tag, Version

_HEX: Final = re.compile(r"[0-9a-f]{1,64}")


_NOT_LISTED: Final = (defer(Version.signature), defer(Version.lineage), defer(Version.manifest))
"""Columns that lists do not show."""


@dataclass(frozen=True, slots=True)
class VersionFilter:
    """What a list of versions is narrowed to.

    q: part of a model name, tag or creator, or the start of a digest; archived: whether archived ones are
    shown.
    """

    q: str = ""
    model: str | None = None
    format: str | None = None
    alias: str | None = None
    archived: bool = False


def page(
    session: Session, wanted: VersionFilter, *, offset: int, limit: int
) -> tuple[Sequence[Version], int]:
    """Versions newest first, without their file lists, and how many there are in all."""
    ids, total = _page_of_ids(session, wanted, offset, limit)
    query = (
        select(Version)
        .where(Version.id.in_(ids))
        .order_by(Version.created_at.desc(), Version.id)
        .options(joinedload(Version.artifact).options(defer(Artifact.files)), *_NOT_LISTED)
    )
    return session.scalars(query).all(), total


def _page_of_ids(
    session: Session, wanted: VersionFilter, offset: int, limit: int
) -> tuple[Sequence[str], int]:
    """Ids of one page, and the count of all. A text search runs once for both; else counting is cheap."""
    conditions = _conditions(wanted)
    ordered = (Version.created_at.desc(), Version.id)
    counting = select(func.count()).select_from(Version).where(*conditions)
    if not wanted.q:
        ids = session.scalars(
            select(Version.id).where(*conditions).order_by(*ordered).offset(offset).limit(limit)
        )
        return ids.all(), session.scalar(counting) or 0
    query = select(Version.id, func.count().over()).where(*conditions).order_by(*ordered)
    rows = session.execute(query.offset(offset).limit(limit)).all()
    if rows:
        return [row[0] for row in rows], rows[0][1]
    return [], (session.scalar(counting) or 0) if offset else 0


def _conditions(wanted: VersionFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if not wanted.archived:
        conditions.append(Version.archived_at.is_(None))
    if wanted.model is not None:
        conditions.append(Version.model_id.in_(select(Model.id).where(Model.name == wanted.model)))
    if wanted.format is not None:
        conditions.append(Version.format == wanted.format)
    if wanted.alias is not None:
        conditions.append(Version.id.in_(select(Alias.version_id).where(Alias.name == wanted.alias)))
    if wanted.q:
        conditions.append(_matches(wanted.q))
    return conditions


def _matches(q: str) -> ColumnElement[bool]:
    """Versions that *q* finds: a union of look-ups, each of which uses an index."""
    models = select(Model.id).where(Model.name.icontains(q, autoescape=True))
    creators = select(Version.created_by).distinct().subquery()
    creator = select(creators.c.created_by).where(creators.c.created_by.icontains(q, autoescape=True))
    found = [
        select(Version.id).where(Version.model_id.in_(models)),
        select(Version.id).where(Version.created_by.in_(creator)),
        _tagged(q),
    ]
    digest = q.lower().removeprefix("sha256:")
    if _HEX.fullmatch(digest):
        first, beyond = f"sha256:{digest}", f"sha256:{digest}g"  # "g" comes after every hexadecimal digit
        found.append(
            select(Version.id).where(Version.artifact_digest >= first, Version.artifact_digest < beyond)
        )
    return Version.id.in_(union_all(*found))


def _tagged(q: str) -> Select[str]:
    """Ids of versions with a tag whose key or value holds *q*; each distinct tag is looked at once."""
    tags = select(Tag.key, Tag.value).distinct().subquery()
    matching = select(tags.c.key, tags.c.value).where(
        or_(tags.c.key.icontains(q, autoescape=True), tags.c.value.icontains(q, autoescape=True))
    )
    return select(Tag.version_id).where(tuple_(Tag.key, Tag.value).in_(matching))


def find(session: Session, ref: VersionRef, *, lock: bool = False) -> Version | None:
    """The version that *ref* names; with *lock*, nobody else changes it until the transaction ends."""
    query = select(Version).join(Model).where(Model.name == ref.model)
    if isinstance(ref.which, int):
        query = query.where(Version.number == ref.which)
    else:
        query = query.join(Alias, Alias.version_id == Version.id).where(Alias.name == ref.which)
    if lock:
        query = query.with_for_update(of=Version)
    return session.scalar(query)


def find_model(session: Session, name: str, *, lock: bool = False) -> Model | None:
    """The model called *name*; with *lock*, nobody else numbers versions or moves aliases meanwhile."""
    query = select(Model).where(Model.name == name)
    return session.scalar(query.with_for_update() if lock else query)


def aliases_of(session: Session, version_ids: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Aliases by version id, sorted."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    query = select(Alias.version_id, Alias.name).where(Alias.version_id.in_(version_ids)).order_by(Alias.name)
    for version_id, name in session.execute(query):
        found[version_id].append(name)
    return {version_id: tuple(names) for version_id, names in found.items()}


def served_by(session: Session, version_ids: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Endpoints by the id of the version that they serve or should serve, sorted by name."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    query = (
        select(Endpoint.name, Endpoint.version_id, Endpoint.serving_version_id)
        .where(or_(Endpoint.version_id.in_(version_ids), Endpoint.serving_version_id.in_(version_ids)))
        .order_by(Endpoint.name)
    )
    for name, goal_id, serving_id in session.execute(query):
        for version_id in {goal_id, serving_id}:
            if version_id is not None:
                found[version_id].append(name)
    return {version_id: tuple(names) for version_id, names in found.items()}


def formats(session: Session) -> tuple[str, ...]:
    """Formats that some version has, sorted."""
    return tuple(session.scalars(select(Version.format).distinct().order_by(Version.format)))


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model with the count and highest number of its versions."""

    model: Model
    version_count: int
    latest_number: int


def models_page(session: Session, *, q: str, offset: int, limit: int) -> tuple[Sequence[ModelRow], int]:
    """Models that have a version, by name, and how many there are in all."""
    counted = (
        select(
            Version.model_id.label("model_id"),
            func.count().label("versions"),
            func.max(Version.number).label("latest"),
        )
        .group_by(Version.model_id)
        .subquery()
    )
    query = select(Model, counted.c.versions, counted.c.latest).join(counted, counted.c.model_id == Model.id)
    if q:
        query = query.where(Model.name.icontains(q, autoescape=True))
    total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    rows = session.execute(query.order_by(Model.name).offset(offset).limit(limit))
    return [ModelRow(model, count, latest) for model, count, latest in rows], total


def model_row(session: Session, name: str) -> ModelRow | None:
    """One model that has a version."""
    query = (
        select(Model, func.count(), func.max(Version.number))
        .join(Version, Version.model_id == Model.id)
        .where(Model.name == name)
        .group_by(Model.id)
    )
    row = session.execute(query).first()
    return ModelRow(*row) if row else None


def aliases_of_models(session: Session, model_ids: Collection[str]) -> dict[str, dict[str, int]]:
    """By model id: alias to version number."""
    found: defaultdict[str, dict[str, int]] = defaultdict(dict)
    query = (
        select(Alias.model_id, Alias.name, Version.number)
        .join(Version, Version.id == Alias.version_id)
        .where(Alias.model_id.in_(model_ids))
        .order_by(Alias.name)
    )
    for model_id, name, number in session.execute(query):
        found[model_id][name] = number
    return found


def ref_of(session: Session, version_id: str | None) -> str | None:
    """`model@N` of the version with that id."""
    if version_id is None:
        return None
    query = select(Version).where(Version.id == version_id)
    version = session.scalar(query.options(lazyload(Version.tags), lazyload(Version.artifact)))
    return version.ref if version else None


def digest_is_named(session: Session, digest: str) -> bool:
    """Whether any version holds the artefact, to serve it or as evidence."""
    holds = or_(Version.artifact_digest == digest, Version.evidence_digest == digest)
    return session.scalar(select(Version.id).where(holds).limit(1)) is not None


def count(session: Session) -> tuple[int, int]:
    """(models that have a version, versions)."""
    row = session.execute(select(func.count(func.distinct(Version.model_id)), func.count(Version.id))).one()
    return row[0], row[1]


def ancestors(session: Session, version: Version, limit: int) -> list[Version]:
    """What *version* was made from, its parent first, at most *limit* of them."""
    found: list[Version] = []
    parent_id = version.parent_id
    while parent_id is not None and len(found) < limit:
        parent = session.get_one(Version, parent_id)
        found.append(parent)
        parent_id = parent.parent_id
    return found


def children(session: Session, version_ids: Collection[str]) -> Sequence[Version]:
    """Versions made directly from one of those, oldest first."""
    query = select(Version).where(Version.parent_id.in_(version_ids)).order_by(Version.created_at, Version.id)
    return session.scalars(query.options(*_NOT_LISTED)).all()
