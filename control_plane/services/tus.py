"""Transfers: how the bytes of one declared file arrive, piece by piece, and go on where they stopped.

A transfer is what the tus protocol calls an upload (https://tus.io/protocols/resumable-upload, 1.0.0): one
file of one of our uploads. Its bytes lie in `<uploads_dir>/<upload>/partial/<transfer>` until the file is
whole; then it is renamed to `<uploads_dir>/<upload>/files/<path>`.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy.orm import Session

from control_plane.domain.upload import UploadState
from control_plane.errors import ChecksumError, ConflictError, GoneError, InvalidInputError, NotFoundError
from control_plane.registry import session as sessions
from control_plane.registry import upload_files
from control_plane.registry.tables import Upload, UploadedFile, new_id
from control_plane.services import upload_rows
from control_plane.services.context import Context
from control_plane.services.receiving import (
    Checksum,
    DiskFloor,
    DiskUsage,
    Incoming,
    PartFile,
    Received,
    RunningHashes,
    hash_file,
    sync_folder,
)

_ENDED: Final = frozenset({UploadState.CANCELLED, UploadState.REJECTED})
_HASHES: Final = RunningHashes()


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How far one file has come; sizes in bytes."""

    id: str
    upload_id: str
    path: str
    size_bytes: int
    offset: int
    """Bytes from the start that are safe."""
    whole: bool
    """Whether the file lies in its place."""
    expires_at: float
    """When it is dropped unless more arrives, in seconds since the epoch."""


def begin(
    ctx: Context,
    upload_id: str,
    path: str,
    *,
    size_bytes: int,
    sha256: str | None = None,
    usage: Callable[[Path], DiskUsage] = shutil.disk_usage,
) -> Transfer:
    """Start sending one declared file; idempotent: one that is under way is gone on with.

    sha256: of the whole file, when its sender knows it; compared at the end. Raises NotFoundError,
    ConflictError when the upload no longer receives, InvalidInputError for another size than was declared.
    """
    with sessions.write(ctx.engine) as session:
        upload = upload_rows.receiving(session, upload_id)
        file = upload_rows.file_of(session, upload, path)
        if size_bytes != file.size_bytes:
            raise InvalidInputError(
                f"{path!r} was declared with {file.size_bytes} bytes, not {size_bytes}",
                next_step="Declare the file's real size in a new upload.",
            )
        if sha256 is not None and file.sha256 not in (None, sha256):
            raise ConflictError(
                f"{path!r} has arrived with other bytes", next_step="Delete it, send it again."
            )
        file.transfer_id = file.transfer_id or new_id()
        file.declared_sha256 = sha256 or file.declared_sha256
        upload.updated_at = time.time()
        transfer = _transfer(ctx, upload, file)
    if size_bytes == 0 and not transfer.whole:
        receive(ctx, transfer.id, offset=0, usage=usage).commit()
        return find(ctx, transfer.id)
    return transfer


def find(ctx: Context, transfer_id: str) -> Transfer:
    """One transfer. Raises NotFoundError, GoneError when its upload was cancelled or has expired."""
    with sessions.read(ctx.engine) as session:
        upload, file = _found(session, transfer_id)
        return _transfer(ctx, upload, file)


def receive(
    ctx: Context,
    transfer_id: str,
    *,
    offset: int,
    checksum: Checksum | None = None,
    usage: Callable[[Path], DiskUsage] = shutil.disk_usage,
) -> Incoming:
    """Take more bytes from *offset* on. Whoever calls must end what is returned.

    Raises NotFoundError, GoneError, LockedError while others send, ConflictError when *offset* is not where
    the safe bytes end (details: offset), NoSpaceError.
    """
    before = _require_unfinished(ctx, transfer_id)
    upload_id = before.upload_id
    if before.offset == before.size_bytes:
        _take_back(ctx, transfer_id)
    part = PartFile(_partial(ctx, upload_id, transfer_id))
    try:
        transfer = _require_unfinished(ctx, transfer_id)  # as it is now that nobody else can change it
        if offset != transfer.offset:
            raise ConflictError(
                f"{transfer.offset} bytes have arrived, so {offset} is not where to go on",
                next_step="Ask for the offset, then send from there.",
                offset=transfer.offset,
            )
        part.truncate(offset)
        floor = DiskFloor(ctx.settings.uploads_dir, ctx.settings.disk_floor, usage)
        floor.require(transfer.size_bytes - offset)
        return Incoming(
            part,
            name=transfer_id,
            offset=offset,
            size_bytes=transfer.size_bytes,
            floor=floor,
            hashes=_HASHES,
            record=lambda safe: _advance(ctx, transfer_id, safe),
            finish=lambda received, whole: _finish(ctx, transfer_id, received, whole),
            checksum=checksum,
        )
    except BaseException:
        part.close()
        raise


def adopt(ctx: Context, upload_id: str, path: str, source: int) -> None:
    """Take the open file *source* itself as a declared file, by a hard link: no byte is copied.

    What bears its name now does not matter. It is never opened for writing. Raises OSError where it cannot
    be linked, ConflictError when it changes while it is hashed, and as `restart` does.
    """
    transfer = restart(ctx, upload_id, path)
    linked = _partial(ctx, upload_id, f"{transfer.id}.linked")
    linked.parent.mkdir(parents=True, exist_ok=True)
    # Only when a folder is given too does Python follow the link in /proc: linkat(2), AT_SYMLINK_FOLLOW.
    os.link(f"/proc/self/fd/{source}", linked, src_dir_fd=source, follow_symlinks=True)
    try:
        before = linked.stat()
        received = Received(before.st_size, hash_file(linked))
        after = linked.stat()
        if (before.st_mtime_ns, transfer.size_bytes) != (after.st_mtime_ns, after.st_size):
            raise ConflictError(
                f"{path!r} changed while it was read", next_step="Import it when it is whole."
            )
        _finish(ctx, transfer.id, received, _Linked(linked))
    finally:
        linked.unlink(missing_ok=True)


class _Whole(Protocol):
    """A file with all its bytes, not yet in its place."""

    def place(self, target: Path) -> None:
        """Give it its final name."""

    def discard(self) -> None:
        """Drop its bytes."""


class _Linked:
    """A hard link to somebody's file: it can be moved and removed, its bytes are not ours."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def place(self, target: Path) -> None:
        """Give it its final name."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._path.rename(target)
        sync_folder(target.parent)

    def discard(self) -> None:
        """Remove the link."""
        self._path.unlink(missing_ok=True)


def finish_received(ctx: Context, upload_id: str) -> None:
    """Put files in their places whose last byte arrived just before a crash. Idempotent; may read them."""
    with sessions.read(ctx.engine) as session:
        upload = upload_rows.found(session.get(Upload, upload_id), upload_id)
        waiting = [
            (str(file.transfer_id), file.size_bytes)
            for file in upload.files
            if file.transfer_id and file.sha256 is None and file.received_bytes == file.size_bytes
        ]
    for transfer_id, size_bytes in waiting:
        receive(ctx, transfer_id, offset=size_bytes).commit()


def terminate(ctx: Context, transfer_id: str) -> None:
    """Forget the transfer and its bytes; the file can be sent anew. Raises as `receive` does.

    A crash in between leaves bytes that the registry does not know, never a file that it misses.
    """
    with sessions.read(ctx.engine) as session:
        upload_id = _found(session, transfer_id)[0].id
    part = PartFile(_partial(ctx, upload_id, transfer_id))
    try:
        with sessions.write(ctx.engine) as session:
            upload = upload_rows.receiving(session, upload_id)
            file = upload_rows.file_of_transfer(session, upload, transfer_id)
            path = file.path
            _reset(file)
            upload.updated_at = time.time()
        part.remove()
        _remove_unknown(ctx, upload_id, path)
    finally:
        part.close()


def _remove_unknown(ctx: Context, upload_id: str, path: str) -> None:
    """Remove the file in its place, unless it has been sent anew meanwhile."""
    with sessions.write(ctx.engine) as session:
        upload = upload_rows.locked(session, upload_id)
        if upload_rows.file_of(session, upload, path).sha256 is None:
            _in_place(ctx, upload_id, path).unlink(missing_ok=True)


def restart(ctx: Context, upload_id: str, path: str) -> Transfer:
    """Start sending one declared file from its first byte, whatever has arrived of it before.

    Raises as `begin` does, and LockedError while others send it.
    """
    transfer_id, size_bytes = current(ctx, upload_id, path)
    if transfer_id is not None:
        terminate(ctx, transfer_id)
    return begin(ctx, upload_id, path, size_bytes=size_bytes)


def current(ctx: Context, upload_id: str, path: str) -> tuple[str | None, int]:
    """The transfer that brings a declared file, None before it began, and the file's size in bytes.

    Raises NotFoundError.
    """
    with sessions.read(ctx.engine) as session:
        upload = upload_rows.found(session.get(Upload, upload_id), upload_id)
        file = upload_rows.file_of(session, upload, path)
        return file.transfer_id, file.size_bytes


def _found(session: Session, transfer_id: str) -> tuple[Upload, UploadedFile]:
    found = upload_files.of_transfer(session, transfer_id)
    if found is None:
        raise NotFoundError(f"There is no transfer {transfer_id[:80]!r}")
    file, upload = found
    if upload.state in _ENDED:
        raise GoneError(f"The upload is {upload.state}", next_step="Begin a new upload.")
    return upload, file


def _require_unfinished(ctx: Context, transfer_id: str) -> Transfer:
    transfer = find(ctx, transfer_id)
    if transfer.whole:
        raise ConflictError(
            "The whole file has arrived", next_step="Complete the upload.", offset=transfer.offset
        )
    return transfer


def _transfer(ctx: Context, upload: Upload, file: UploadedFile) -> Transfer:
    return Transfer(
        id=str(file.transfer_id),
        upload_id=upload.id,
        path=file.path,
        size_bytes=file.size_bytes,
        offset=file.size_bytes if file.sha256 else _on_disk(ctx, upload.id, file),
        whole=file.sha256 is not None,
        expires_at=upload.updated_at + upload_rows.IDLE_LIMITS_S[UploadState.RECEIVING],
    )


def _on_disk(ctx: Context, upload_id: str, file: UploadedFile) -> int:
    """What was recorded, or less where the disk lost the file."""
    if _is_unrecorded(ctx, upload_id, file):
        return file.size_bytes
    try:
        return min(file.received_bytes, _partial(ctx, upload_id, str(file.transfer_id)).stat().st_size)
    except FileNotFoundError:
        return 0


def _is_unrecorded(ctx: Context, upload_id: str, file: UploadedFile) -> bool:
    """Whether all bytes came and the file was put in its place, and a crash kept that from being recorded."""
    if file.sha256 or not file.transfer_id or file.received_bytes < file.size_bytes:
        return False
    if _partial(ctx, upload_id, file.transfer_id).exists():
        return False
    try:
        return _in_place(ctx, upload_id, file.path).stat().st_size == file.size_bytes
    except FileNotFoundError:
        return False


def _take_back(ctx: Context, transfer_id: str) -> None:
    """Make an unrecorded file a partial one again, from where it is finished as any other."""
    with sessions.write(ctx.engine) as session:
        upload = upload_rows.receiving(session, _found(session, transfer_id)[0].id)
        file = upload_rows.file_of_transfer(session, upload, transfer_id)
        if _is_unrecorded(ctx, upload.id, file):
            _in_place(ctx, upload.id, file.path).rename(_partial(ctx, upload.id, transfer_id))


def _partial(ctx: Context, upload_id: str, transfer_id: str) -> Path:
    return upload_rows.home(ctx, upload_id) / "partial" / transfer_id


def _in_place(ctx: Context, upload_id: str, path: str) -> Path:
    return upload_rows.home(ctx, upload_id) / "files" / path


def _advance(ctx: Context, transfer_id: str, offset: int) -> None:
    with sessions.write(ctx.engine) as session:
        if not upload_files.advance(session, transfer_id, offset, time.time()):
            raise GoneError("The upload has ended meanwhile", next_step="Look at what became of it.")


def _finish(ctx: Context, transfer_id: str, received: Received, part: _Whole) -> None:
    """Put the whole file in its place while the upload receives: once it is complete, nothing changes."""
    with sessions.write(ctx.engine) as session:
        upload_id = _found(session, transfer_id)[0].id
        upload = upload_rows.receiving(session, upload_id)
        file = upload_rows.file_of_transfer(session, upload, transfer_id)
        fits = file.declared_sha256 in (None, received.sha256)
        if fits:
            part.place(_in_place(ctx, upload_id, file.path))
            file.received_bytes, file.sha256 = received.size_bytes, received.sha256
        else:
            part.discard()
            file.received_bytes = 0
        upload.updated_at = time.time()
    if not fits:
        raise ChecksumError(
            f"{received.size_bytes} bytes arrived, but not those that were declared: their SHA-256 is "
            f"{received.sha256}",
            next_step="See whether the file changed, then send it again.",
            sha256=received.sha256,
        )


def _reset(file: UploadedFile) -> None:
    file.transfer_id = file.sha256 = file.declared_sha256 = None
    file.received_bytes = 0
