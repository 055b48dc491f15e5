"""Signed manifests of versions: signing, signing what has none, and checking one against its row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from sqlalchemy import null, select
from sqlalchemy.orm import Session

from control_plane.domain.names import parse_version_ref
from control_plane.domain.views import JobView
from control_plane.errors import NotFoundError
from control_plane.provenance import keys
from control_plane.provenance.keys import SigningKey
from control_plane.provenance.statement import hash_of, sealed, statement
from control_plane.registry import session as sessions
from control_plane.registry import versions
from control_plane.registry.artifacts import (
    Advance,
    ArtifactStore,
    StoredArtifact,
    StoredFile,
    digest_of,
    ignore,
)
from control_plane.registry.tables import Artifact, Json, Version
from control_plane.services import jobs
from control_plane.services.context import Context
from serving_agent.contract.provenance import Envelope, Predicate, Statement, UntrustedError, verified

KIND: Final = "verify"
"""The job that checks a version."""
_MAY_CHANGE: Final = frozenset({"parent", "gate"})
_SERVING: Final = ("handler", "signature", "labels")
"""Columns that say how a version is served."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What checking one version found; *problems* is empty when all is well."""

    ref: str
    key_id: str | None
    """The key that signed it."""
    files: int
    problems: tuple[str, ...]


def sign(session: Session, version: Version, key: SigningKey) -> Json:
    """The signed manifest of *version*, whose row has been flushed: a DSSE envelope as plain JSON."""
    artifact = session.get_one(Artifact, version.artifact_digest)
    files = {file["path"]: file["sha256"] for file in artifact.files}
    return sealed(statement(files, _predicate(session, version)), key)


def sign_missing(ctx: Context) -> int:
    """Sign versions that were registered before versions were signed; how many those were. Idempotent."""
    key = keys.open_or_create(ctx.settings.keys_dir)
    with sessions.write(ctx.engine) as session:
        rows: Sequence[Version] = session.scalars(
            select(Version).where(Version.manifest.is_(null())).with_for_update(of=Version)
        ).all()
        for row in rows:
            row.manifest = sign(session, row, key)
        return len(rows)


def queue_check(ctx: Context, ref: str, *, actor: str) -> JobView:
    """Have a version checked by a job. Raises NotFoundError."""
    with sessions.write(ctx.engine) as session:
        version = versions.find(session, parse_version_ref(ref))
        if version is None:
            raise NotFoundError(f"There is no version {ref}", next_step="See the list of versions.")
        params = {"version_id": version.id}
        return jobs.view(jobs.queue(session, KIND, subject=version.ref, params=params, actor=actor))


def check(ctx: Context, version_id: str, advance: Advance = ignore) -> Checked:
    """Read every byte of a version and of its sealed original again and compare them with its signed
    manifest, and that with its row.

    advance: told the share of bytes that have been read. Raises NotFoundError.
    """
    with sessions.read(ctx.engine) as session:
        row = session.get(Version, version_id)
        if row is None:
            raise NotFoundError("The version is gone")
        present, envelope = _predicate(session, row), row.manifest
        served = _files(row.artifact)
        original = _files(row.evidence) if row.evidence else ()
    try:
        said = read(ctx, envelope)
    except UntrustedError as error:
        return Checked(present.version, None, 0, (str(error),))
    stored = {"": _artifact(said.predicate.artifact, _as_signed(served, said))}
    if said.predicate.evidence not in (None, said.predicate.artifact):
        stored["sealed original: "] = _artifact(said.predicate.evidence, original)
    problems = (*_differences(said.predicate, present), *_stored_otherwise(ctx, stored, advance))
    return Checked(present.version, _signer(envelope), len(said.subject), problems)


def read(ctx: Context, envelope: Json | None) -> Statement:
    """The statement in *envelope* if a trusted key signed it. Raises UntrustedError."""
    if envelope is None:
        raise UntrustedError("it has no signed manifest")
    try:
        parsed = msgspec.convert(envelope, Envelope)
    except msgspec.ValidationError as error:
        raise UntrustedError(f"the signed manifest cannot be read: {error}") from None
    return verified(parsed, keys.trusted(ctx.settings.keys_dir))


def _predicate(session: Session, version: Version) -> Predicate:
    return Predicate(
        version=version.ref,
        artifact=version.artifact_digest,
        format=version.format,
        evidence=version.evidence_digest,
        parent=versions.ref_of(session, version.parent_id),
        gate=version.gate_version,
        uploader=version.created_by,
        lineage_sha256=hash_of(version.lineage),
        created_at=version.created_at,
        serving_sha256=hash_of({name: getattr(version, name) for name in _SERVING}),
    )


def _differences(said: Predicate, present: Predicate) -> tuple[str, ...]:
    """What the registry says otherwise than what was signed.

    A parent may have been deleted since, and another gate may have judged the version again. How it is
    served was not signed at first.
    """
    signed, now = msgspec.structs.asdict(said), msgspec.structs.asdict(present)
    return tuple(
        f"the registry says {_words(name)} {now[name]!r}, signed is {signed[name]!r}"
        for name in signed
        if name not in _MAY_CHANGE and signed[name] != now[name]
        if not (name == "serving_sha256" and signed[name] is None)
    )


def _words(name: str) -> str:
    return name.replace("_sha256", " hash").replace("_at", " at")


def _files(artifact: Artifact) -> tuple[StoredFile, ...]:
    return tuple(StoredFile(**file) for file in artifact.files)


def _as_signed(files: Iterable[StoredFile], said: Statement) -> tuple[StoredFile, ...]:
    """The signed files; their sizes, which are not signed, as in *files*."""
    sizes = {file.path: file.size_bytes for file in files}
    return tuple(StoredFile(each.name, sizes.get(each.name, -1), each.digest.sha256) for each in said.subject)


def _artifact(digest: str | None, files: tuple[StoredFile, ...]) -> StoredArtifact:
    return StoredArtifact(str(digest), sum(max(0, file.size_bytes) for file in files), files)


def _stored_otherwise(
    ctx: Context, artifacts: Mapping[str, StoredArtifact], advance: Advance
) -> Iterator[str]:
    """What is wrong with *artifacts*, by the words that tell them apart; all their files are read."""
    total, done = sum(each.size_bytes for each in artifacts.values()) or 1, 0
    for which, artifact in artifacts.items():
        part = _part(advance, done / total, artifact.size_bytes / total)
        yield from (which + problem for problem in _wrong(ctx, artifact, part))
        done += artifact.size_bytes


def _part(advance: Advance, start: float, share: float) -> Advance:
    return lambda done: advance(start + share * done)


def _wrong(ctx: Context, artifact: StoredArtifact, advance: Advance) -> tuple[str, ...]:
    if digest_of(artifact.files) != artifact.digest:
        return ("the list of files does not make the signed digest",)
    try:
        return ArtifactStore(ctx.settings.artifacts_dir).verify(artifact, advance)
    except NotFoundError as error:
        return (error.message,)


def _signer(envelope: Json | None) -> str | None:
    signatures: list[dict[str, str]] = (envelope or {}).get("signatures", [])
    return signatures[0]["keyid"] if signatures else None
