"""What people declare of a new upload: its files with their sizes, and whether so much may come."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy.orm import Session

from control_plane.domain.details import check_details, check_labels
from control_plane.domain.file_paths import check_paths
from control_plane.domain.names import check_label
from control_plane.domain.upload import UploadState
from control_plane.errors import InvalidInputError, TooLargeError
from control_plane.registry import session as sessions
from control_plane.registry import upload_files
from control_plane.registry.tables import Upload, UploadedFile
from control_plane.services import architectures, catalogs
from control_plane.services.context import Context
from control_plane.services.receiving import DiskFloor, DiskUsage
from serving_agent.contract.signature import Signature

_UNFINISHED: Final = (UploadState.RECEIVING, UploadState.CHECKING, UploadState.NEEDS_INPUT)


class NewFile(NamedTuple):
    """A file that will come; modified_ms: when the sender's own last changed, since the epoch."""

    path: str
    size_bytes: int
    modified_ms: int | None = None


def check_files(
    ctx: Context,
    files: Sequence[NewFile],
    *,
    usage: Callable[[Path], DiskUsage] = shutil.disk_usage,
) -> None:
    """Raise unless files of these names and sizes may be taken: InvalidInputError for what cannot be,
    TooLargeError beyond the largest upload, NoSpaceError when the disk would fall below its floor."""
    check_paths([file.path for file in files])
    for file in files:
        if file.size_bytes < 0:
            raise InvalidInputError(f"{file.path!r} cannot have {file.size_bytes} bytes")
    total = sum(file.size_bytes for file in files)
    if total == 0:
        raise InvalidInputError("The files are empty", next_step="Choose the file again.")
    if total > ctx.settings.max_upload_bytes:
        raise TooLargeError(
            f"The upload has {total} bytes; at most {ctx.settings.max_upload_bytes} are taken",
            next_step="Raise SIGNALBOX_MAX_UPLOAD_BYTES if it must be.",
        )
    ctx.settings.uploads_dir.mkdir(parents=True, exist_ok=True)
    DiskFloor(ctx.settings.uploads_dir, ctx.settings.disk_floor, usage).require(total)


def declare(ctx: Context, session: Session, upload: Upload, files: Sequence[NewFile]) -> None:
    """Add *files* to the new *upload*. Raises TooLargeError beyond its owner's quota."""
    sessions.lock(session, f"quota/{upload.created_by}")
    total, limit = sum(file.size_bytes for file in files), ctx.settings.upload_quota_bytes
    used = upload_files.unfinished_bytes(session, upload.created_by, _UNFINISHED)
    if used + total > limit:
        raise TooLargeError(
            f"{upload.created_by} has {used} bytes in unfinished uploads; with {total} more they would be "
            f"over the {limit} that one user may have",
            next_step="Finish or cancel an unfinished upload, or raise SIGNALBOX_UPLOAD_QUOTA_BYTES.",
            used_bytes=used,
            quota_bytes=limit,
        )
    upload.files = [
        UploadedFile(
            position=position,
            path=file.path,
            size_bytes=file.size_bytes,
            modified_ms=file.modified_ms,
            received_bytes=0,
        )
        for position, file in enumerate(files)
    ]


def new_row(
    ctx: Context,
    *,
    model: str,
    actor: str,
    details: Mapping[str, Any] | None = None,
    signature: Signature | None = None,
    architecture: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
    handler: str | None = None,
    accept_program: bool = False,
    reference: str | None = None,
) -> Upload:
    """Make the row of a new upload, still without files. Raises InvalidInputError."""
    check_handler(ctx, handler)
    now = time.time()
    return Upload(
        model_name=check_label("model", model),
        state=UploadState.RECEIVING,
        reference=reference,
        details=check_details(details or {}),
        declared_signature=msgspec.to_builtins(signature) if signature else None,
        architecture=architectures.check(ctx.settings, architecture) if architecture else None,
        labels=check_labels(labels),
        handler=handler,
        found={},
        program_accepted_by=actor if accept_program else None,
        program_accepted_at=now if accept_program else None,
        created_by=actor,
        created_at=now,
        updated_at=now,
    )


def check_handler(ctx: Context, handler: str | None) -> None:
    """Raise InvalidInputError for a handler that there is not, listing those that there are."""
    known = [each.name for each in catalogs.handlers(ctx)] if handler else []
    if handler and handler not in known:
        raise InvalidInputError(
            f"There is no handler {handler[:80]!r}; known handlers are {', '.join(known)}"
        )
