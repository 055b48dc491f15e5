"""Registering versions: files into the artefact store, then all rows in one transaction."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from control_plane.admission import gate
from control_plane.domain.details import check_details, check_labels, check_lineage
from control_plane.domain.names import check_label, parse_version_ref
from control_plane.domain.upload import UploadState
from control_plane.domain.views import Example
from control_plane.errors import ConflictError, NotFoundError, UnavailableError
from control_plane.provenance import keys
from control_plane.registry import session as sessions
from control_plane.registry import uploads, versions
from control_plane.registry.artifacts import ArtifactStore, StoredArtifact
from control_plane.registry.tables import Artifact, Examples, Model, Upload, Version
from control_plane.services import events, manifests
from control_plane.services.context import Context
from serving_agent.contract.signature import Signature

_INGEST_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A checked version that has no number yet."""

    model: str
    format: str
    handler: str
    signature: Signature
    labels: list[str]
    details: dict[str, Any]
    examples: tuple[Example, ...]
    actor: str
    program_accepted_by: str | None
    program_accepted_at: float | None
    parent_ref: str | None
    upload_id: str | None
    lineage: dict[str, Any]
    verdict: dict[str, Any] | None


def register(
    ctx: Context,
    *,
    model: str,
    files_dir: Path,
    format: str,  # noqa: A002  the product's word
    handler: str,
    signature: Signature,
    labels: Sequence[str] = (),
    details: Mapping[str, Any] | None = None,
    examples: Sequence[Example] = (),
    actor: str,
    program_accepted_by: str | None = None,
    program_accepted_at: float | None = None,
    parent_ref: str | None = None,
    upload_id: str | None = None,
    lineage: Mapping[str, Any] | None = None,
    evidence_dir: Path | None = None,
    verdict: Mapping[str, Any] | None = None,
) -> str:
    """Make the files below *files_dir* the next version of *model* and return its name, `model@N`.

    The same files again make a new version of the same artefact. Numbers are never used twice, also after the
    versions that had them were deleted. With *upload_id*, the upload becomes REGISTERED in the same
    transaction, and calling again (a job that was run twice) returns the version it became; an upload that
    was cancelled meanwhile raises ConflictError. *files_dir* is left in place; its files become read-only.

    lineage: where it came from, free JSON of at most 1 MiB. evidence_dir: the original upload, kept sealed as
    long as the version and never served. verdict: what this gate said of it: {"decision", "code",
    "left_out"}.
    """
    draft = _Draft(
        model=check_label("model", model),
        format=format,
        handler=handler,
        signature=signature,
        labels=check_labels(labels),
        details=check_details(details or {}),
        examples=tuple(examples),
        actor=actor,
        program_accepted_by=program_accepted_by,
        program_accepted_at=program_accepted_at,
        parent_ref=parent_ref,
        upload_id=upload_id,
        lineage=check_lineage(lineage or {}),
        verdict=None if verdict is None else check_lineage(verdict),
    )
    store = ArtifactStore(ctx.settings.artifacts_dir)
    for _ in range(_INGEST_ATTEMPTS):
        artifact = store.ingest(files_dir)
        evidence = store.ingest(evidence_dir) if evidence_dir else None
        ref = _insert_if_held(ctx, store, artifact, evidence, draft)
        if ref is not None:
            return ref
    raise UnavailableError("The artefact was deleted while it was registered", next_step="Register it again.")


def _insert_if_held(
    ctx: Context,
    store: ArtifactStore,
    artifact: StoredArtifact,
    evidence: StoredArtifact | None,
    draft: _Draft,
) -> str | None:
    """Write the rows unless the files of either artefact went meanwhile (see `remove_unnamed`)."""
    key = keys.open_or_create(ctx.settings.keys_dir)
    now = time.time()
    named = {each.digest: each for each in (artifact, evidence) if each is not None}
    with sessions.write(ctx.engine) as session:
        for digest in sorted(named):  # one order for all, so that no two wait for each other
            sessions.lock(session, digest)
        upload = _upload(session, draft.upload_id)
        if upload is not None and upload.version is not None:
            return upload.version.ref
        if not all(store.holds(digest) for digest in named):
            return None
        for each in named.values():
            _keep_artifact(session, each, now)
        version = _insert_version(session, artifact.digest, evidence.digest if evidence else None, draft, now)
        version.manifest = manifests.sign(session, version, key)
        _note_registered(session, version, draft, upload, now)
        return version.ref


def _upload(session: Session, upload_id: str | None) -> Upload | None:
    if upload_id is None:
        return None
    upload = uploads.locked(session, upload_id)
    if upload is None:
        raise NotFoundError(f"There is no upload {upload_id}")
    if upload.version is None and upload.state != UploadState.CHECKING:
        raise ConflictError(f"The upload is {upload.state}, so it cannot become a version")
    return upload


def _keep_artifact(session: Session, artifact: StoredArtifact, now: float) -> None:
    if session.get(Artifact, artifact.digest) is None:
        session.add(
            Artifact(
                digest=artifact.digest,
                size_bytes=artifact.size_bytes,
                files=[asdict(file) for file in artifact.files],
                created_at=now,
            )
        )
        session.flush()


def _insert_version(
    session: Session, digest: str, evidence_digest: str | None, draft: _Draft, now: float
) -> Version:
    model = _numbered(session, draft.model, now)
    version = Version(
        model_id=model.id,
        number=model.last_number,
        artifact_digest=digest,
        format=draft.format,
        handler=draft.handler,
        signature=msgspec.to_builtins(draft.signature),
        labels=draft.labels,
        details=draft.details,
        parent_id=_parent_id(session, draft.parent_ref),
        program_accepted_by=draft.program_accepted_by,
        program_accepted_at=draft.program_accepted_at,
        lineage=draft.lineage,
        evidence_digest=evidence_digest,
        gate_version=gate.VERSION if draft.verdict is not None else None,
        verdict=draft.verdict,
        created_by=draft.actor,
        created_at=now,
        archived_at=None,
    )
    session.add(version)
    session.flush()
    if draft.examples:
        session.add(Examples(version_id=version.id, items=[asdict(example) for example in draft.examples]))
    return version


def _note_registered(
    session: Session, version: Version, draft: _Draft, upload: Upload | None, now: float
) -> None:
    if upload is not None:
        upload.state, upload.version_id, upload.updated_at = UploadState.REGISTERED, version.id, now
    events.record(
        session,
        at=now,
        actor=draft.actor,
        action="version.registered",
        subject=version.ref,
        message=f"{draft.actor} registered {version.ref} ({draft.format})",
        digest=version.artifact_digest,
        program_accepted_by=draft.program_accepted_by,
    )


def _numbered(session: Session, name: str, now: float) -> Model:
    """The model (made if need be) with its `last_number` raised to the number of the new version."""
    sessions.lock(session, f"model/{name}")
    model = versions.find_model(session, name, lock=True)
    if model is None:
        model = Model(name=name, description="", last_number=0, created_at=now)
        session.add(model)
    model.last_number += 1
    session.flush()
    return model


def _parent_id(session: Session, parent_ref: str | None) -> str | None:
    if parent_ref is None:
        return None
    parent = versions.find(session, parse_version_ref(parent_ref))
    if parent is None:
        raise NotFoundError(f"There is no version {parent_ref} to be the parent")
    return parent.id


def remove_unnamed(ctx: Context, digest: str) -> bool:
    """Remove the artefact's row and files if no version holds it, to serve or as evidence; whether it did.

    Runs under the same lock as `register`, which looks for the files under that lock too: a version is never
    left without its files. A crash in between leaves files in the store's `tmp`, which
    `services.housekeeping` removes.
    """
    store = ArtifactStore(ctx.settings.artifacts_dir)
    with sessions.write(ctx.engine) as session:
        sessions.lock(session, digest)
        if versions.digest_is_named(session, digest):
            return False
        row = session.get(Artifact, digest)
        if row is not None:
            session.delete(row)
            session.flush()
        aside = store.set_aside(digest)
    store.discard(aside)
    return True
