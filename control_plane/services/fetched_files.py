"""Files that a job fetches for an upload, on their way in: declared, taken, or the reason why not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Final

from control_plane.domain.upload import UploadState
from control_plane.domain.views import Reason
from control_plane.errors import ConflictError
from control_plane.registry import session as sessions
from control_plane.services import tus, upload_declarations, upload_rows, uploads
from control_plane.services.context import Context
from control_plane.services.receiving import CHECK_EVERY_BYTES
from control_plane.services.upload_declarations import NewFile

FETCH_FAILED: Final = "fetch-failed"
"""Reason code of an upload whose files could not be fetched."""


def declare(ctx: Context, upload_id: str, files: Sequence[NewFile]) -> None:
    """Note which files will come. Idempotent. Raises as `uploads.create` does, and ConflictError when they
    are others than an earlier attempt found."""
    upload_declarations.check_files(ctx, files)
    with sessions.write(ctx.engine) as session:
        row = upload_rows.receiving(session, upload_id)
        known = [NewFile(file.path, file.size_bytes, file.modified_ms) for file in row.files]
        if known and known != list(files):
            raise ConflictError("The files changed while they were fetched", next_step="Import them again.")
        if not known:
            upload_declarations.declare(ctx, session, row, files)
        row.updated_at = time.time()


def take(
    ctx: Context, upload_id: str, path: str, blocks: Iterable[bytes], tell: Callable[[int], None]
) -> None:
    """Write *blocks* as the declared file *path*; tell: called with the number of bytes of each block.

    Raises InvalidInputError for too few bytes, TooLargeError for too many, NoSpaceError.
    """
    with uploads.sink(ctx, upload_id, path) as incoming:
        unsafe = 0
        for block in blocks:
            incoming.write(block)
            tell(len(block))
            unsafe += len(block)
            if unsafe >= CHECK_EVERY_BYTES:
                incoming.checkpoint()
                unsafe = 0
        incoming.commit()


def link(ctx: Context, upload_id: str, path: str, source: int) -> bool:
    """Take the open file *source* itself as the declared file *path*, by a hard link; False where that
    cannot be done.

    Raises ConflictError when it changes meanwhile.
    """
    try:
        tus.adopt(ctx, upload_id, path, source)
    except OSError:  # another file system, or one without hard links
        return False
    return True


def reject(ctx: Context, upload_id: str, reason: Reason) -> None:
    """The files could not be fetched: the upload ends, for *reason*. Idempotent."""
    with sessions.write(ctx.engine) as session:
        row = upload_rows.locked(session, upload_id)
        if row.state != UploadState.RECEIVING:
            return
        row.state, row.reason, row.updated_at = UploadState.REJECTED, asdict(reason), time.time()
        message = f"The upload for {row.model_name} was rejected: {reason.message}"
        upload_rows.record(session, row, "worker", "upload.rejected", message, code=reason.code)
    upload_rows.remove_files(ctx, upload_id)
