"""Uploads: declare files, take their bytes, have them checked, answer what the check asks.

Folder of an upload: `<uploads_dir>/<id>/files/<path>` for whole files, `<uploads_dir>/<id>/partial/` for what
is still arriving. It goes when the upload ends, however it ends.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.orm import Session

from control_plane.domain.details import check_details, check_labels
from control_plane.domain.file_paths import check_paths
from control_plane.domain.job import JobState
from control_plane.domain.names import check_label, parse_version_ref
from control_plane.domain.upload import FINAL_STATES, UploadState
from control_plane.domain.views import Page, Reason, UploadView
from control_plane.errors import ConflictError, InvalidInputError, NotFoundError, TooLargeError
from control_plane.registry import jobs as job_rows
from control_plane.registry import session as sessions
from control_plane.registry import uploads, versions
from control_plane.registry.tables import Job, Upload
from control_plane.services import catalogs, jobs, upload_rows
from control_plane.services.context import Context
from control_plane.services.paging import offset
from control_plane.services.receiving import DiskFloor, DiskUsage, FileSink, Received
from serving_agent.contract.signature import Signature

CHECK = "check"
"""Kind of the job that judges an upload; its parameters are {"upload_id"}."""
IDLE_LIMITS_S: Mapping[UploadState, float] = {
    UploadState.RECEIVING: 24 * 3600.0,
    UploadState.NEEDS_INPUT: 7 * 24 * 3600.0,
}
"""How long an upload may wait for bytes, or for a person, before it is cancelled."""


def create(
    ctx: Context,
    *,
    model: str,
    files: Sequence[tuple[str, int]],
    actor: str,
    details: Mapping[str, Any] | None = None,
    signature: Signature | None = None,
    labels: Sequence[str] = (),
    handler: str | None = None,
    accept_program: bool = False,
    usage: Callable[[Path], DiskUsage] = shutil.disk_usage,
) -> UploadView:
    """Declare the files, (relative path, size in bytes), of the next version of *model*.

    Raises InvalidInputError for names and sizes that cannot be, TooLargeError beyond the largest upload,
    NoSpaceError when the disk would fall below its floor.
    """
    check_label("model", model)
    check_paths([path for path, _ in files])
    _check_sizes(ctx, files)
    _check_handler(ctx, handler)
    ctx.settings.uploads_dir.mkdir(parents=True, exist_ok=True)
    DiskFloor(ctx.settings.uploads_dir, ctx.settings.disk_floor, usage).require(
        sum(size for _, size in files)
    )
    now = time.time()
    with sessions.write(ctx.engine) as session:
        row = Upload(
            model_name=model,
            state=UploadState.RECEIVING,
            files=[_declared(path, size) for path, size in files],
            details=check_details(details or {}),
            declared_signature=msgspec.to_builtins(signature) if signature else None,
            labels=check_labels(labels),
            handler=handler,
            found={},
            program_accepted_by=actor if accept_program else None,
            program_accepted_at=now if accept_program else None,
            created_by=actor,
            created_at=now,
            updated_at=now,
        )
        session.add(row)
        session.flush()
        upload_rows.record(session, row, actor, "upload.created", f"{actor} began an upload for {model}")
        if accept_program:
            upload_rows.record_acceptance(session, row, actor)
        return upload_rows.view(row)


def sink(
    ctx: Context, upload_id: str, path: str, *, usage: Callable[[Path], DiskUsage] = shutil.disk_usage
) -> FileSink:
    """Where the bytes of one declared file go; sending a file again begins again and replaces it.

    Raises NotFoundError, ConflictError when the upload no longer receives, NoSpaceError.
    """
    with sessions.write(ctx.engine) as session:
        row = _receiving(session, upload_id)
        index = _index(row, path)
        size_bytes = int(row.files[index]["size_bytes"])
        row.updated_at = time.time()
    partial_dir = upload_rows.home(ctx, upload_id) / "partial"
    return FileSink(
        folder(ctx, upload_id) / path,
        size_bytes,
        partial_dir=partial_dir,
        floor=DiskFloor(ctx.settings.uploads_dir, ctx.settings.disk_floor, usage),
        on_commit=lambda received, place: _arrived(ctx, upload_id, index, received, place),
    )


def complete(ctx: Context, upload_id: str, *, actor: str) -> UploadView:
    """All bytes are sent: have them checked by a job. Idempotent.

    Raises ConflictError naming what is missing.
    """
    with sessions.write(ctx.engine) as session:
        row = upload_rows.locked(session, upload_id)
        if row.state == UploadState.CHECKING:
            return upload_rows.view(row)
        upload_rows.require(row, UploadState.RECEIVING)
        missing = [file["path"] for file in row.files if file["sha256"] is None]
        if missing:
            raise ConflictError(
                f"{len(missing)} of {len(row.files)} files have not arrived, among them {missing[0]!r}",
                next_step="Send them, then complete the upload.",
                missing=missing[:20],
            )
        _check(session, row, actor)
        return upload_rows.view(row)


def answer(
    ctx: Context,
    upload_id: str,
    *,
    actor: str,
    accept_program: bool | None = None,
    signature: Signature | None = None,
    labels: Sequence[str] | None = None,
    handler: str | None = None,
) -> UploadView:
    """Give what the check asked for; when nothing is left to ask, the upload is checked again.

    Accepting to run the program is recorded with *actor* and the time.
    """
    _check_handler(ctx, handler)
    with sessions.write(ctx.engine) as session:
        row = upload_rows.locked(session, upload_id)
        upload_rows.require(row, UploadState.NEEDS_INPUT)
        if accept_program:
            row.program_accepted_by, row.program_accepted_at = actor, time.time()
            upload_rows.record_acceptance(session, row, actor)
        if signature is not None:
            row.declared_signature = msgspec.to_builtins(signature)
        if labels is not None:
            row.labels = check_labels(labels)
        row.handler = handler or row.handler
        _settle(session, row, actor, given=_given(accept_program=accept_program, signature=signature))
        return upload_rows.view(row)


def cancel(ctx: Context, upload_id: str, *, actor: str) -> UploadView:
    """End the upload and remove its files. Idempotent; one that ended otherwise is a ConflictError."""
    with sessions.write(ctx.engine) as session:
        row = upload_rows.locked(session, upload_id)
        if row.state != UploadState.CANCELLED:
            if row.state in FINAL_STATES:
                raise ConflictError(f"The upload is already {row.state}")
            _cancel(session, row, actor)
        shown = upload_rows.view(row)
    upload_rows.remove_files(ctx, upload_id)
    return shown


def get(ctx: Context, upload_id: str) -> UploadView:
    """One upload. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        return upload_rows.view(upload_rows.found(uploads.find(session, upload_id), upload_id))


def recent(ctx: Context, *, page: int = 1, page_size: int = 20) -> Page[UploadView]:
    """Uploads newest first."""
    start = offset(page, page_size)
    with sessions.read(ctx.engine) as session:
        rows, total = uploads.page(session, offset=start, limit=page_size)
        return Page(tuple(upload_rows.view(row) for row in rows), total, page, page_size)


def expire(ctx: Context, now: float) -> tuple[str, ...]:
    """Cancel uploads that waited longer than IDLE_LIMITS_S and remove folders of ended ones."""
    expired = []
    with sessions.write(ctx.engine) as session:
        for state, limit_s in IDLE_LIMITS_S.items():
            for row in uploads.idle(session, state, now - limit_s):
                _cancel(session, row, "signalbox")
                expired.append(row.id)
    for upload_id in (*expired, *_abandoned(ctx)):
        upload_rows.remove_files(ctx, upload_id)
    return tuple(expired)


def settle(ctx: Context) -> None:
    """End uploads whose check has ended without a word: cancelled before it began, or killed too often."""
    with sessions.read(ctx.engine) as session:
        if not uploads.stranded(session):
            return
    with sessions.write(ctx.engine) as session:
        stranded = uploads.stranded(session)
        for row, job in stranded:
            if job.state == JobState.CANCELLED:
                _cancel(session, row, job.created_by)
            else:
                row.state, row.reason, row.updated_at = UploadState.REJECTED, _unfinished(job), time.time()
                message = f"The upload for {row.model_name} was rejected: its check did not end"
                upload_rows.record(session, row, "worker", "upload.rejected", message)
        ids = [row.id for row, _ in stranded]
    for upload_id in ids:
        upload_rows.remove_files(ctx, upload_id)


def _unfinished(job: Job) -> dict[str, Any]:
    why = (job.error or {}).get("message", "it ended early")
    return asdict(Reason("check-failed", f"The check itself failed: {why}", "Upload it again."))


def folder(ctx: Context, upload_id: str) -> Path:
    """Where the whole files of the upload lie, under their declared paths."""
    return upload_rows.home(ctx, upload_id) / "files"


def declared(ctx: Context, upload_id: str) -> Declared:
    """What the uploader gave with the files, for the job that checks them. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        row = upload_rows.found(uploads.find(session, upload_id), upload_id)
        return Declared(
            model=row.model_name,
            actor=row.created_by,
            details=row.details,
            signature=upload_rows.signature_of(row.declared_signature),
            labels=tuple(row.labels),
            handler=row.handler,
            program_accepted_by=row.program_accepted_by,
            program_accepted_at=row.program_accepted_at,
        )


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """What people said of an upload, before and after its check; signature may lack outputs."""

    model: str
    actor: str
    details: dict[str, Any]
    signature: Signature | None
    labels: tuple[str, ...]
    handler: str | None
    program_accepted_by: str | None
    program_accepted_at: float | None


def ask(ctx: Context, upload_id: str, found: Mapping[str, Any], needs: Sequence[str]) -> None:
    """The check read *found* and needs "acceptance", "signature" or both from a person."""
    with sessions.write(ctx.engine) as session:
        row = upload_rows.locked(session, upload_id)
        upload_rows.require(row, UploadState.CHECKING)
        row.found = {**check_details(found), "needs": list(needs)}
        row.state, row.updated_at = UploadState.NEEDS_INPUT, time.time()
        message = f"The upload for {row.model_name} waits for {' and '.join(needs)}"
        upload_rows.record(session, row, "worker", "upload.asked", message)


def ask_again(ctx: Context, upload_id: str, reason: Reason, suggested: Signature | None) -> None:
    """The declared signature does not fit, for *reason*: another is needed.

    suggested: what the form starts with; None for what the check read from the file.
    """
    with sessions.write(ctx.engine) as session:
        row = upload_rows.locked(session, upload_id)
        upload_rows.require(row, UploadState.CHECKING)
        suggestion = msgspec.to_builtins(suggested) if suggested else row.found.get("signature")
        row.found = {**row.found, "signature": suggestion, "needs": ["signature"]}
        row.declared_signature, row.reason = None, asdict(reason)
        row.state, row.updated_at = UploadState.NEEDS_INPUT, time.time()
        message = f"The upload for {row.model_name} waits for another signature: {reason.message}"
        upload_rows.record(session, row, "worker", "upload.asked", message)


def note(ctx: Context, upload_id: str, found: Mapping[str, Any]) -> None:
    """The check has read *found* so far; the upload stays CHECKING."""
    with sessions.write(ctx.engine) as session:
        row = upload_rows.locked(session, upload_id)
        upload_rows.require(row, UploadState.CHECKING)
        row.found, row.updated_at = check_details(found), time.time()


def reject(ctx: Context, upload_id: str, reason: Reason) -> None:
    """The check lets it not in; its files go. Idempotent."""
    with sessions.write(ctx.engine) as session:
        row = upload_rows.locked(session, upload_id)
        if row.state != UploadState.REJECTED:
            upload_rows.require(row, UploadState.CHECKING)
            row.state, row.reason, row.updated_at = UploadState.REJECTED, asdict(reason), time.time()
            message = f"The upload for {row.model_name} was rejected: {reason.message}"
            upload_rows.record(
                session, row, "worker", "upload.rejected", message, code=reason.code, file=reason.file
            )
    upload_rows.remove_files(ctx, upload_id)


def registered(ctx: Context, upload_id: str, version_ref: str) -> None:
    """The upload has become *version_ref* (see `registration.register`); its files go. Idempotent."""
    with sessions.write(ctx.engine) as session:
        row = upload_rows.locked(session, upload_id)
        if row.state != UploadState.REGISTERED:
            upload_rows.require(row, UploadState.CHECKING)
            version = versions.find(session, parse_version_ref(version_ref))
            if version is None:
                raise NotFoundError(f"There is no version {version_ref}")
            row.state, row.version_id, row.updated_at = UploadState.REGISTERED, version.id, time.time()
    upload_rows.remove_files(ctx, upload_id)


def _declared(path: str, size_bytes: int) -> dict[str, Any]:
    return {"path": path, "size_bytes": size_bytes, "received_bytes": 0, "sha256": None}


def _check_sizes(ctx: Context, files: Sequence[tuple[str, int]]) -> None:
    for path, size_bytes in files:
        if size_bytes < 0:
            raise InvalidInputError(f"{path!r} cannot have {size_bytes} bytes")
    total = sum(size_bytes for _, size_bytes in files)
    if total == 0:
        raise InvalidInputError("The files are empty", next_step="Choose the file again.")
    if total > ctx.settings.max_upload_bytes:
        raise TooLargeError(
            f"The upload has {total} bytes; at most {ctx.settings.max_upload_bytes} are taken",
            next_step="Raise SIGNALBOX_MAX_UPLOAD_BYTES if it must be.",
        )


def _check_handler(ctx: Context, handler: str | None) -> None:
    known = [each.name for each in catalogs.handlers(ctx)] if handler else []
    if handler and handler not in known:
        raise InvalidInputError(
            f"There is no handler {handler[:80]!r}; known handlers are {', '.join(known)}"
        )


def _given(*, accept_program: bool | None, signature: Signature | None) -> set[str]:
    return ({"acceptance"} if accept_program else set()) | ({"signature"} if signature is not None else set())


def _settle(session: Session, row: Upload, actor: str, *, given: set[str]) -> None:
    """Take *given* off what the upload needs; check it again when that was all."""
    left = [need for need in row.found.get("needs", []) if need not in given]
    row.found = {**row.found, "needs": left}
    row.updated_at = time.time()
    if not left:
        _check(session, row, actor)


def _check(session: Session, row: Upload, actor: str) -> None:
    job = jobs.queue(session, CHECK, subject=row.model_name, params={"upload_id": row.id}, actor=actor)
    row.state, row.job_id, row.updated_at = UploadState.CHECKING, job.id, time.time()
    row.reason = None


def _cancel(session: Session, row: Upload, actor: str) -> None:
    job = job_rows.locked(session, row.job_id) if row.job_id else None
    if job is not None and job.finished_at is None:
        jobs.request_cancel(session, job, actor=actor)
    row.state, row.updated_at = UploadState.CANCELLED, time.time()
    upload_rows.record(
        session, row, actor, "upload.cancelled", f"{actor} cancelled the upload for {row.model_name}"
    )


def _arrived(ctx: Context, upload_id: str, index: int, received: Received, place: Callable[[], None]) -> None:
    """Put the file in its place while the upload receives: once it is complete, nothing changes."""
    with sessions.write(ctx.engine) as session:
        row = _receiving(session, upload_id)
        place()
        files = [dict(file) for file in row.files]
        files[index] |= {"received_bytes": received.size_bytes, "sha256": received.sha256}
        row.files, row.updated_at = files, time.time()


def _index(row: Upload, path: str) -> int:
    for index, file in enumerate(row.files):
        if file["path"] == path:
            return index
    raise NotFoundError(
        f"The upload declares no file {path[:200]!r}", next_step="Use a path that was declared."
    )


def _receiving(session: Session, upload_id: str) -> Upload:
    row = upload_rows.locked(session, upload_id)
    upload_rows.require(row, UploadState.RECEIVING)
    return row


def _abandoned(ctx: Context) -> tuple[str, ...]:
    """Folders left behind by a crash: of uploads that ended."""
    if not ctx.settings.uploads_dir.is_dir():
        return ()
    present = [path.name for path in ctx.settings.uploads_dir.iterdir() if len(path.name) == 32]
    with sessions.read(ctx.engine) as session:
        return tuple(uploads.ids(session, present, states=tuple(FINAL_STATES)))
