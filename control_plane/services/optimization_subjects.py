"""What the lab knows of a version without opening it: rows of the registry, and files in the store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy.orm import Session

from control_plane.domain.verdict import refusal
from control_plane.errors import ConflictError, NotFoundError
from control_plane.optimization import machine, text_graphs
from control_plane.optimization.base import Machine, Subject
from control_plane.optimization.messages import Artefact
from control_plane.registry import session as sessions
from control_plane.registry.artifacts import ArtifactStore
from control_plane.registry.tables import Examples, Version
from control_plane.services import architectures, catalogs, versions
from control_plane.services.context import Context
from serving_agent.contract.signature import Signature

MAX_CONFIG_BYTES: Final = 4 * 1024**2
"""A larger config.json is none that names an architecture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One version, as the lab works with it."""

    version_id: str
    ref: str
    """`model@N`."""
    model: str
    model_id: str
    format: str
    handler: str
    signature: Signature
    """What the artefact itself takes and returns."""
    labels: tuple[str, ...]
    digest: str
    size_bytes: int
    folder: Path
    """Its files in the store."""
    examples: tuple[dict[str, Any], ...]
    """[{"inputs", "label"}]"""
    program_accepted_by: str | None
    program_accepted_at: float | None

    @property
    def served(self) -> Signature:
        """What clients send and get when its own handler serves it. Raises InvalidInputError."""
        return catalogs.served_signature(self.handler, self.signature, self.labels)


def known(ctx: Context, ref: str) -> Known:
    """The version that *ref* names. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        return of_row(ctx, session, versions.find(session, ref))


def workable(ctx: Context, ref: str) -> Known:
    """`known`, and nothing speaks against running it. Raises ConflictError, NotFoundError."""
    with sessions.read(ctx.engine) as session:
        row = versions.find(session, ref)
        if row.archived_at is not None:
            raise ConflictError(f"{row.ref} is archived", next_step="Restore it first.")
        refused = refusal(row.ref, row.verdict)
        if refused:
            raise ConflictError(refused, next_step="Choose another version.")
        found = of_row(ctx, session, row)
    if not found.folder.is_dir():
        raise NotFoundError(f"The files of {found.ref} are missing from the artefact store")
    architectures.check_served(ctx, found.format, found.digest)
    return found


def of_row(ctx: Context, session: Session, row: Version) -> Known:
    """*row* as the lab works with it."""
    kept = session.get(Examples, row.id)
    return Known(
        version_id=row.id,
        ref=row.ref,
        model=row.model.name,
        model_id=row.model_id,
        format=row.format,
        handler=row.handler,
        signature=msgspec.convert(row.signature, Signature),
        labels=tuple(row.labels),
        digest=row.artifact_digest,
        size_bytes=row.artifact.size_bytes,
        folder=ArtifactStore(ctx.settings.artifacts_dir).folder(row.artifact_digest),
        examples=tuple(kept.items) if kept else (),
        program_accepted_by=row.program_accepted_by,
        program_accepted_at=row.program_accepted_at,
    )


def subject(found: Known, on: Machine | None = None) -> Subject:
    """*found* as methods judge it. on: the machine; this one without."""
    return Subject(
        ref=found.ref,
        format=found.format,
        handler=found.handler,
        signature=text_graphs.tensors(found.signature, found.handler, configuration(found)),
        size_bytes=found.size_bytes,
        labels=found.labels,
        architecture=architecture(found),
        machine=on or machine.this_machine(),
    )


def artefact(ctx: Context, found: Known) -> Artefact:
    """*found* as the lab's processes open it."""
    return Artefact(
        folder=str(found.folder),
        format=found.format,
        handler=found.handler,
        signature=found.signature,
        labels=found.labels,
        allowed_handlers=ctx.settings.handlers,
    )


def architecture(found: Known) -> str | None:
    """Name of the transformers class that a Hugging Face folder's configuration names; None for others."""
    named = configuration(found).get("architectures")
    return str(named[0]) if isinstance(named, list) and named else None


def configuration(found: Known) -> dict[str, Any]:
    """The `config.json` among the version's files; empty where there is none that can be read."""
    file = found.folder / "config.json"
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            return {}
        config = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}
