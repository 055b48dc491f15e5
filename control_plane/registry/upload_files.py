"""Queries about the files of uploads and how far each has arrived."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.orm import Session, lazyload

from control_plane.domain.upload import UploadState
from control_plane.registry.tables import Upload, UploadedFile


def of_transfer(session: Session, transfer_id: str) -> tuple[UploadedFile, Upload] | None:
    """The file that the transfer brings, as it is now, and its upload without its other files."""
    query = select(UploadedFile, Upload).join(Upload, Upload.id == UploadedFile.upload_id)
    one = query.where(UploadedFile.transfer_id == transfer_id).options(lazyload(Upload.files))
    found = session.execute(one.execution_options(populate_existing=True)).first()
    return (found[0], found[1]) if found else None


def at_path(session: Session, upload_id: str, path: str) -> UploadedFile | None:
    """The file that the upload declares at *path*."""
    query = select(UploadedFile).where(UploadedFile.upload_id == upload_id, UploadedFile.path == path)
    return session.scalar(query)


def advance(session: Session, transfer_id: str, offset: int, now: float) -> bool:
    """Note that *offset* bytes are safe; False when the transfer ended, or its upload no longer receives."""
    row = of_transfer(session, transfer_id)
    if row is None or row[0].sha256 is not None:
        return False
    touched = session.execute(
        update(Upload)
        .where(Upload.id == row[1].id, Upload.state == UploadState.RECEIVING)
        .values(updated_at=now)
    )
    if cast(CursorResult[Any], touched).rowcount == 0:
        return False
    row[0].received_bytes = offset
    return True


def unfinished_bytes(session: Session, owner: str, states: Sequence[str]) -> int:
    """Declared bytes of all uploads of *owner* that are in one of *states*."""
    query = select(func.sum(UploadedFile.size_bytes)).join(Upload, Upload.id == UploadedFile.upload_id)
    return int(session.scalar(query.where(Upload.created_by == owner, Upload.state.in_(states))) or 0)
