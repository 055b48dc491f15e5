"""What all upload services share: finding rows, showing them, their folder, their events."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy.orm import Session

from control_plane.domain.upload import UploadState, declaration_hash
from control_plane.domain.views import Reason, UploadFile, UploadView
from control_plane.errors import ConflictError, NotFoundError
from control_plane.registry import upload_files, uploads
from control_plane.registry.tables import Upload, UploadedFile
from control_plane.services import events
from control_plane.services.context import Context
from serving_agent.contract.signature import Signature

IDLE_LIMITS_S: Final[Mapping[UploadState, float]] = {
    UploadState.RECEIVING: 24 * 3600.0,
    UploadState.NEEDS_INPUT: 7 * 24 * 3600.0,
}
"""How long an upload may wait for bytes, or for a person, before it is cancelled."""


def view(row: Upload) -> UploadView:
    """*row* as services return it."""
    files = tuple(_file_view(file) for file in row.files)
    return UploadView(
        id=row.id,
        model_name=row.model_name,
        state=row.state,
        files=files,
        size_bytes=sum(file.size_bytes for file in files),
        received_bytes=sum(file.received_bytes for file in files),
        format=row.found.get("format"),
        program=bool(row.found.get("program", False)),
        signature=signature_of(row.declared_signature or row.found.get("signature")),
        verdict=row.found.get("verdict"),
        needs=tuple(row.found.get("needs", ())) if row.state == UploadState.NEEDS_INPUT else (),
        reason=Reason(**row.reason) if row.reason else None,
        job_id=row.job_id,
        version_ref=row.version.ref if row.version else None,
        program_accepted_by=row.program_accepted_by,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
        reference=row.reference,
        declaration_sha256=declaration_hash(
            details=row.details,
            labels=row.labels,
            handler=row.handler,
            architecture=row.architecture,
            signature=row.declared_signature,
        ),
    )


def _file_view(file: UploadedFile) -> UploadFile:
    return UploadFile(
        path=file.path,
        size_bytes=file.size_bytes,
        received_bytes=file.received_bytes,
        sha256=file.sha256,
        modified_ms=file.modified_ms,
        transfer_id=file.transfer_id,
    )


def signature_of(stored: Any) -> Signature | None:
    """The signature that a JSON column holds, if any."""
    return msgspec.convert(stored, Signature) if stored else None


def locked(session: Session, upload_id: str) -> Upload:
    """The upload, locked until the transaction ends. Raises NotFoundError."""
    return found(uploads.locked(session, upload_id), upload_id)


def found(row: Upload | None, upload_id: str) -> Upload:
    """*row* if there is one. Raises NotFoundError."""
    if row is None:
        raise NotFoundError(f"There is no upload {upload_id[:80]!r}")
    return row


def require(row: Upload, state: UploadState) -> None:
    """Raise ConflictError unless the upload is in *state*."""
    if row.state != state:
        raise ConflictError(f"The upload is {row.state}, not {state}", next_step="Look at what became of it.")


def receiving(session: Session, upload_id: str) -> Upload:
    """The upload, locked, while it takes bytes. Raises NotFoundError, ConflictError."""
    row = locked(session, upload_id)
    require(row, UploadState.RECEIVING)
    return row


def file_of(session: Session, row: Upload, path: str) -> UploadedFile:
    """The declared file *path*. Raises NotFoundError."""
    file = upload_files.at_path(session, row.id, path)
    if file is None:
        raise NotFoundError(
            f"The upload declares no file {path[:200]!r}", next_step="Use a path that was declared."
        )
    return file


def file_of_transfer(session: Session, row: Upload, transfer_id: str) -> UploadedFile:
    """The file that the transfer brings, as it is now. Raises NotFoundError when it was ended."""
    found = upload_files.of_transfer(session, transfer_id)
    if found is None or found[1] is not row:
        raise NotFoundError(f"There is no transfer {transfer_id[:80]!r}")
    return found[0]


def home(ctx: Context, upload_id: str) -> Path:
    """The folder of all the upload has on the disk. Raises NotFoundError for what is no upload's id."""
    if not (len(upload_id) == 32 and upload_id.isascii() and upload_id.isalnum()):
        raise NotFoundError(f"There is no upload {upload_id[:80]!r}")
    return ctx.settings.uploads_dir / upload_id


def remove_files(ctx: Context, upload_id: str) -> None:
    """Remove the upload's folder. Idempotent."""
    shutil.rmtree(home(ctx, upload_id), ignore_errors=True)


def record_acceptance(session: Session, row: Upload, actor: str) -> None:
    """Record that *actor* accepted to run the program."""
    message = f"{actor} accepted to run the uploaded program for {row.model_name}"
    record(session, row, actor, "upload.program_accepted", message)


def record(session: Session, row: Upload, actor: str, action: str, message: str, **details: Any) -> None:
    """Record one event of the upload."""
    events.record(
        session,
        at=time.time(),
        actor=actor,
        action=action,
        subject=f"upload/{row.id}",
        message=message,
        model=row.model_name,
        **details,
    )
