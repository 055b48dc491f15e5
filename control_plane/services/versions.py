"""Models and their versions: find, tag, alias, archive, delete."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import delete as sql_delete
from sqlalchemy import update
from sqlalchemy.orm import Session

from control_plane.domain.details import MAX_TAGS, check_tag_key, check_tag_value
from control_plane.domain.names import check_alias, parse_version_ref
from control_plane.domain.optimization import variant_of
from control_plane.domain.verdict import decision_of
from control_plane.domain.views import (
    Example,
    FileView,
    ModelView,
    Page,
    VersionDetail,
    VersionView,
)
from control_plane.errors import ConflictError, InUseError, InvalidInputError, NotFoundError
from control_plane.registry import endpoints, optimization_trials, rollout_history, versions
from control_plane.registry import session as sessions
from control_plane.registry.tables import Agent, Alias, Artifact, Examples, Tag, Upload, Version
from control_plane.services import events, registration, waivers
from control_plane.services.context import Context
from control_plane.services.paging import offset, query_text
from serving_agent.contract.signature import Signature

_MOVE_ALIAS: Final = "Move or remove the alias first."
_UNPROTECT: Final = (
    "Only a rollout moves it. To do it by hand, take {alias} out of SIGNALBOX_PROTECTED_ALIASES and restart."
)


def search(
    ctx: Context,
    *,
    q: str = "",
    model: str | None = None,
    format: str | None = None,  # noqa: A002  the product's word
    alias: str | None = None,
    archived: bool = False,
    page: int = 1,
    page_size: int = 50,
) -> Page[VersionView]:
    """Versions newest first. *q*: part of a model name, tag or creator, or the start of a digest.

    archived: whether archived versions are in the list too.
    """
    start = offset(page, page_size)
    wanted = versions.VersionFilter(query_text(q), model, format, alias, archived)
    with sessions.read(ctx.engine) as session:
        rows, total = versions.page(session, wanted, offset=start, limit=page_size)
        return Page(_views(session, rows), total, page, page_size)


def get(ctx: Context, ref: str) -> VersionDetail:
    """Everything known of *ref*, `model@N` or `model@alias`. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        return _detail(session, find(session, ref))


def models(ctx: Context, *, q: str = "", page: int = 1, page_size: int = 50) -> Page[ModelView]:
    """Models by name. One whose versions were all deleted is not listed; its numbers stay used."""
    start = offset(page, page_size)
    with sessions.read(ctx.engine) as session:
        rows, total = versions.models_page(session, q=query_text(q), offset=start, limit=page_size)
        return Page(_model_views(session, rows), total, page, page_size)


def model(ctx: Context, name: str) -> ModelView:
    """One model. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        row = versions.model_row(session, name)
        if row is None:
            raise NotFoundError(f"There is no model {name!r}")
        return _model_views(session, [row])[0]


def formats_in_use(ctx: Context) -> tuple[str, ...]:
    """Formats that some version has, sorted."""
    with sessions.read(ctx.engine) as session:
        return versions.formats(session)


def examples(ctx: Context, ref: str) -> tuple[Example, ...]:
    """Example inputs of a version, in the order they were given."""
    with sessions.read(ctx.engine) as session:
        row = session.get(Examples, find(session, ref).id)
        items = row.items if row else []
        return tuple(Example(item["inputs"], item.get("label")) for item in items)


def set_tag(ctx: Context, ref: str, key: str, value: str, *, actor: str) -> None:
    """Give the version the tag *key* = *value*, in place of the value it had. Idempotent."""
    check_tag_key(key)
    check_tag_value(value)
    with sessions.write(ctx.engine) as session:
        version = find(session, ref, lock=True)
        tag = next((tag for tag in version.tags if tag.key == key), None)
        if tag is not None and tag.value == value:
            return
        if tag is None and len(version.tags) >= MAX_TAGS:
            raise InvalidInputError(
                f"{version.ref} has {MAX_TAGS} tags already", next_step="Remove one first."
            )
        if tag is None:
            version.tags.append(Tag(version_id=version.id, key=key, value=value))
        else:
            tag.value = value
        _record(session, actor, "version.tagged", version.ref, f"tagged {version.ref} with {key}={value}")


def remove_tag(ctx: Context, ref: str, key: str, *, actor: str) -> None:
    """Take the tag *key* off the version. Raises NotFoundError when it has none."""
    with sessions.write(ctx.engine) as session:
        version = find(session, ref, lock=True)
        tag = next((tag for tag in version.tags if tag.key == key), None)
        if tag is None:
            raise NotFoundError(f"{version.ref} has no tag {key!r}")
        version.tags.remove(tag)
        _record(session, actor, "version.untagged", version.ref, f"removed tag {key} from {version.ref}")


def set_alias(
    ctx: Context,
    model: str,
    alias: str,
    number: int,
    *,
    actor: str,
    by_rollout: bool = False,
    waiver: str | None = None,
) -> None:
    """Point *alias* at version *number* of *model*, wherever it pointed before. Idempotent.

    A protected alias can be set by hand where it is not set yet; after that only a rollout moves it, and
    others get a ConflictError. waiver: why a variant that the optimisation lab rejected gets a protected
    alias all the same; without it a RejectedError.
    """
    protected = () if by_rollout else ctx.settings.protected_aliases
    with sessions.write(ctx.engine) as session:
        point_alias(session, model, alias, number, actor=actor, protected=protected, waiver=waiver)


def point_alias(
    session: Session,
    model: str,
    alias: str,
    number: int,
    *,
    actor: str,
    protected: Collection[str],
    waiver: str | None = None,
) -> None:
    """`set_alias` within the transaction of *session*. protected: aliases that must stay if they are set."""
    check_alias(alias)
    versions.find_model(session, model, lock=True)
    version = find(session, f"{model}@{number}", lock=True)
    if version.archived_at is not None:
        raise ConflictError(f"{version.ref} is archived", next_step="Restore it first.")
    present = session.get(Alias, (version.model_id, alias))
    if present is not None and present.version_id == version.id:
        return
    before = versions.ref_of(session, present.version_id if present else None)
    if present is not None and alias in protected:
        raise _protected(model, alias, "moved")
    if alias in protected:
        waivers.check(session, version, waiver, wanted=f"given the alias {alias}", actor=actor)
    if present is None:
        session.add(Alias(model_id=version.model_id, name=alias, version_id=version.id))
    else:
        present.version_id = version.id
    was = f" (was {before})" if before else ""
    message = f"pointed {model}@{alias} at {version.ref}{was}"
    _record(session, actor, "alias.set", version.ref, message, alias=alias, before=before)


def follow_protected(
    session: Session, old: Version, new: Version, *, actor: str, aliases: Collection[str]
) -> None:
    """Move those of *aliases* that point at *old* to *new*, a version of the same model: for rollouts."""
    held = versions.aliases_of(session, [old.id]).get(old.id, ())
    for alias in sorted(set(held) & set(aliases)) if old.model_id == new.model_id else ():
        point_alias(session, new.model.name, alias, new.number, actor=actor, protected=())


def remove_alias(ctx: Context, model: str, alias: str, *, actor: str) -> None:
    """Remove *alias* from *model*. Raises NotFoundError without one, ConflictError for a protected one."""
    with sessions.write(ctx.engine) as session:
        row = versions.find_model(session, model, lock=True)
        present = session.get(Alias, (row.id, alias)) if row else None
        if present is None:
            raise NotFoundError(f"{model!r} has no alias {alias!r}")
        if alias in ctx.settings.protected_aliases:
            raise _protected(model, alias, "removed")
        ref = versions.ref_of(session, present.version_id) or model
        session.delete(present)
        _record(
            session, actor, "alias.removed", ref, f"removed alias {model}@{alias} from {ref}", alias=alias
        )


def _protected(model: str, alias: str, what: str) -> ConflictError:
    return ConflictError(
        f"{model}@{alias} is protected: it cannot be {what} by hand",
        next_step=_UNPROTECT.format(alias=alias),
        alias=alias,
    )


def archive(ctx: Context, ref: str, *, actor: str) -> None:
    """Hide the version from lists and refuse to deploy it. Idempotent.

    Raises InUseError while it is served.
    """
    with sessions.write(ctx.engine) as session:
        version = find(session, ref, lock=True)
        if version.archived_at is None:
            _refuse_served(session, version, "archived")
            _refuse_rolled_out(session, version)
            _refuse_aliased(ctx, session, version, "archived")
            version.archived_at = time.time()
            _record(session, actor, "version.archived", version.ref, f"archived {version.ref}")


def restore(ctx: Context, ref: str, *, actor: str) -> None:
    """Bring an archived version back. Idempotent."""
    with sessions.write(ctx.engine) as session:
        restore_found(session, find(session, ref, lock=True), actor=actor)


def restore_found(session: Session, version: Version, *, actor: str) -> bool:
    """`restore` within the transaction of *session*; whether the version was archived."""
    if version.archived_at is None:
        return False
    version.archived_at = None
    _record(session, actor, "version.restored", version.ref, f"restored {version.ref}")
    return True


def delete(ctx: Context, ref: str, *, actor: str) -> None:
    """Delete a version for good, and its artefact and evidence when no other version holds them.

    Raises InUseError, saying where, while an endpoint serves it or should, an agent of it runs, or an alias
    points at it. Its number is not used again: `model@N` never comes to mean other bytes.
    """
    with sessions.write(ctx.engine) as session:
        version = find(session, ref, lock=True)
        _refuse_served(session, version, "deleted")
        _refuse_aliased(ctx, session, version, "deleted")
        _refuse_recorded(session, version)
        name, digest = version.ref, version.artifact_digest
        held = {digest, version.evidence_digest or digest}
        _forget(session, version)
        _record(session, actor, "version.deleted", name, f"deleted {name}", digest=digest)
    for each in held:
        registration.remove_unnamed(ctx, each)


def find(session: Session, ref: str, *, lock: bool = False) -> Version:
    """The row that *ref* names. Raises NotFoundError, InvalidInputError."""
    version = versions.find(session, parse_version_ref(ref), lock=lock)
    if version is None:
        raise NotFoundError(f"There is no version {ref}", next_step="See the list of versions.")
    return version


def _refuse_served(session: Session, version: Version, what: str) -> None:
    served_by = versions.served_by(session, [version.id]).get(version.id, ())
    if served_by:
        raise InUseError(
            f"{version.ref} cannot be {what}: it is served by {', '.join(served_by)}",
            next_step="Deploy another version there, or delete the endpoint.",
            endpoints=list(served_by),
        )
    agent = endpoints.live_agent_of(session, version.id)
    if agent is not None:
        raise InUseError(
            f"{version.ref} cannot be {what}: agent {agent.id} of {agent.endpoint.name} still runs it",
            next_step="Wait until the agent has stopped.",
            endpoints=[agent.endpoint.name],
        )


def _refuse_rolled_out(session: Session, version: Version) -> None:
    rollout = rollout_history.of_version(session, version.id, standing=True)
    if rollout is not None:
        raise InUseError(
            f"{version.ref} cannot be archived: the rollout of {rollout.candidate.ref} to {rollout.endpoint} "
            "needs it",
            next_step="Wait until the rollout has ended and keeps nothing warm.",
            endpoints=[rollout.endpoint],
            rollout=rollout.id,
        )


def _refuse_recorded(session: Session, version: Version) -> None:
    rollout = rollout_history.of_version(session, version.id, standing=False)
    if rollout is not None:
        raise InUseError(
            f"{version.ref} cannot be deleted: it is in the record of a rollout to {rollout.endpoint}",
            next_step="Archive it instead.",
            rollout=rollout.id,
        )


def _refuse_aliased(ctx: Context, session: Session, version: Version, what: str) -> None:
    aliases = versions.aliases_of(session, [version.id]).get(version.id, ())
    protected = next((alias for alias in aliases if alias in ctx.settings.protected_aliases), None)
    if aliases:
        raise InUseError(
            f"{version.ref} cannot be {what}: alias {', '.join(aliases)} points at it",
            next_step=_UNPROTECT.format(alias=protected) if protected else _MOVE_ALIAS,
            aliases=list(aliases),
        )


def _forget(session: Session, version: Version) -> None:
    """Delete the row and what belongs to it; rows that merely mention it stay, without it."""
    session.execute(update(Version).where(Version.parent_id == version.id).values(parent_id=None))
    session.execute(update(Upload).where(Upload.version_id == version.id).values(version_id=None))
    session.execute(sql_delete(Agent).where(Agent.version_id == version.id))
    optimization_trials.forget_version(session, version.id)
    session.delete(version)
    session.flush()


def _record(session: Session, actor: str, action: str, subject: str, did: str, **details: Any) -> None:
    events.record(
        session,
        at=time.time(),
        actor=actor,
        action=action,
        subject=subject,
        message=f"{actor} {did}",
        **details,
    )


def _views(session: Session, rows: Sequence[Version]) -> tuple[VersionView, ...]:
    ids = [row.id for row in rows]
    aliases = versions.aliases_of(session, ids)
    served_by = versions.served_by(session, ids)
    return tuple(
        VersionView(**_common(row, aliases.get(row.id, ()), served_by.get(row.id, ()))) for row in rows
    )


def _common(row: Version, aliases: tuple[str, ...], served_by: tuple[str, ...]) -> dict[str, Any]:
    method, accepted = variant_of(row.lineage)
    return {
        "id": row.id,
        "ref": row.ref,
        "model": row.model.name,
        "number": row.number,
        "format": row.format,
        "handler": row.handler,
        "digest": row.artifact_digest,
        "size_bytes": row.artifact.size_bytes,
        "aliases": aliases,
        "tags": {tag.key: tag.value for tag in sorted(row.tags, key=lambda tag: tag.key)},
        "details": row.details,
        "served_by": served_by,
        "created_by": row.created_by,
        "created_at": row.created_at,
        "archived_at": row.archived_at,
        "decision": decision_of(row.verdict),
        "method": method,
        "accepted": accepted,
    }


def _detail(session: Session, row: Version) -> VersionDetail:
    aliases = versions.aliases_of(session, [row.id]).get(row.id, ())
    served_by = versions.served_by(session, [row.id]).get(row.id, ())
    return VersionDetail(
        **_common(row, aliases, served_by),
        signature=msgspec.convert(row.signature, Signature),
        labels=tuple(row.labels),
        files=_file_views(row.artifact),
        parent=versions.ref_of(session, row.parent_id),
        program_accepted_by=row.program_accepted_by,
        program_accepted_at=row.program_accepted_at,
        example_count=len(row.examples.items) if row.examples else 0,
        lineage=row.lineage,
        evidence_digest=row.evidence_digest,
        evidence_files=_file_views(row.evidence) if row.evidence else (),
        gate_version=row.gate_version,
        verdict=row.verdict,
        manifest=row.manifest,
    )


def _file_views(artifact: Artifact) -> tuple[FileView, ...]:
    return tuple(FileView(**file) for file in artifact.files)


def _model_views(session: Session, rows: Sequence[versions.ModelRow]) -> tuple[ModelView, ...]:
    aliases = versions.aliases_of_models(session, [row.model.id for row in rows])
    return tuple(
        ModelView(
            name=row.model.name,
            description=row.model.description,
            version_count=row.version_count,
            latest=f"{row.model.name}@{row.latest_number}",
            aliases={
                alias: f"{row.model.name}@{number}" for alias, number in aliases.get(row.model.id, {}).items()
            },
            created_at=row.model.created_at,
        )
        for row in rows
    )
