"""Golden sets: add, list, look at. They are never changed; another content is another digest."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy.orm import Session

from control_plane.domain import golden
from control_plane.domain.golden import GoldenItem, GoldenSetView
from control_plane.domain.names import check_label
from control_plane.domain.views import Page
from control_plane.errors import InvalidInputError, NotFoundError
from control_plane.provenance.statement import hash_of
from control_plane.registry import golden_sets, versions
from control_plane.registry import session as sessions
from control_plane.registry.tables import GoldenSet, Model, Version
from control_plane.registry.versions import VersionFilter
from control_plane.services import catalogs, events
from control_plane.services.context import Context
from control_plane.services.paging import offset
from serving_agent.contract.signature import Signature

ALGORITHM: Final = "sha256:"
MIN_DIGEST_CHARS: Final = 4
CHECKED_VERSIONS: Final = 50
"""Newest versions whose forms items may fit."""

_Form = tuple[Signature, tuple[str, ...]]
"""What a version takes and gives when it is served, and the names of its classes."""


def add(
    ctx: Context, model: str, items: Sequence[GoldenItem], *, name: str | None = None, actor: str
) -> GoldenSetView:
    """Keep *items* as a golden set of *model*; one with the same content is returned as it is.

    They must fit what one of the model's newer versions takes and gives when its own handler serves it.
    Raises NotFoundError, InvalidInputError naming the item that does not fit the newest one.
    """
    chosen = golden.check_name(name) if name is not None else None
    with sessions.read(ctx.engine) as session:
        model_id = _model(session, model).id
        known = versions.page(session, VersionFilter(model=model), offset=0, limit=CHECKED_VERSIONS)[0]
        forms = _forms(known)
    _check(items, forms, model)
    plain = golden.plain(items)
    digest = ALGORITHM + hash_of(plain)
    with sessions.write(ctx.engine) as session:
        sessions.lock(session, f"golden/{model_id}")
        present = golden_sets.find(session, model_id, digest)
        if present is not None:
            return view(present)
        row = GoldenSet(
            model_id=model_id,
            digest=digest,
            name=chosen or digest.removeprefix(ALGORITHM)[:12],
            items=plain,
            created_by=actor,
            created_at=time.time(),
        )
        session.add(row)
        session.flush()
        _record(session, row, model, actor)
        return view(session.get_one(GoldenSet, row.id))


def search(
    ctx: Context, *, model: str | None = None, page: int = 1, page_size: int = 50
) -> Page[GoldenSetView]:
    """Golden sets newest first."""
    start = offset(page, page_size)
    with sessions.read(ctx.engine) as session:
        rows, total = golden_sets.page(session, model=model, offset=start, limit=page_size)
        return Page(tuple(view(row) for row in rows), total, page, page_size)


def get(ctx: Context, model: str, digest: str) -> GoldenSetView:
    """One golden set by its digest or the start of it. Raises NotFoundError, InvalidInputError."""
    with sessions.read(ctx.engine) as session:
        return view(_found(session, model, digest))


def items(
    ctx: Context, model: str, digest: str, *, page: int = 1, page_size: int = 50
) -> Page[Mapping[str, Any]]:
    """The items of a golden set in their order; raises as `get` does."""
    start = offset(page, page_size)
    with sessions.read(ctx.engine) as session:
        row = _found(session, model, digest)
        return Page(tuple(row.items[start : start + page_size]), len(row.items), page, page_size)


def view(row: GoldenSet) -> GoldenSetView:
    """*row* as services return it."""
    return GoldenSetView(
        model=row.model.name,
        digest=row.digest,
        name=row.name,
        items=len(row.items),
        labelled=sum(item["label"] is not None for item in row.items),
        with_outputs=sum(item["outputs"] is not None for item in row.items),
        created_by=row.created_by,
        created_at=row.created_at,
    )


def _forms(known: Sequence[Version]) -> list[_Form]:
    """What *known* versions look like to clients, each form once, in their order."""
    forms: dict[tuple[str, bytes, tuple[str, ...]], _Form] = {}
    for row in known:
        labels = tuple(row.labels)
        key = (row.handler, msgspec.json.encode(row.signature, order="sorted"), labels)
        if key not in forms:
            signature = msgspec.convert(row.signature, Signature)
            forms[key] = (catalogs.served_signature(row.handler, signature, labels), labels)
    return list(forms.values())


def _check(items: Sequence[GoldenItem], forms: Sequence[_Form], model: str) -> None:
    """See that *items* fit one of *forms*; the first one says what is wrong."""
    if not forms:
        raise NotFoundError(f"{model} has no version to check a golden set against")
    refusals: list[InvalidInputError] = []
    for signature, labels in forms:
        try:
            golden.check(items, signature, labels)
        except InvalidInputError as refusal:
            refusals.append(refusal)
        else:
            return
    raise refusals[0]


def _found(session: Session, model: str, digest: str) -> GoldenSet:
    row = _model(session, model)
    wanted = ALGORITHM + digest.lower().removeprefix(ALGORITHM)
    if len(wanted) < len(ALGORITHM) + MIN_DIGEST_CHARS:
        raise InvalidInputError(f"Name at least {MIN_DIGEST_CHARS} characters of the digest")
    matching = golden_sets.starting_with(session, row.id, wanted, 2)
    if len(matching) > 1:
        raise InvalidInputError(f"{digest[:80]} is the start of several golden sets of {model}")
    if not matching:
        raise NotFoundError(
            f"{model} has no golden set {digest[:80]}", next_step=f"See `signalbox golden list {model}`."
        )
    return matching[0]


def _model(session: Session, name: str) -> Model:
    row = versions.find_model(session, check_label("model", name))
    if row is None:
        raise NotFoundError(f"There is no model {name!r}")
    return row


def _record(session: Session, row: GoldenSet, model: str, actor: str) -> None:
    events.record(
        session,
        at=row.created_at,
        actor=actor,
        action="golden_set.added",
        subject=f"model/{model}",
        message=f"{actor} added golden set {row.name} of {len(row.items)} items to {model}",
        digest=row.digest,
    )
