"""Uploads as people use them: declare files, have them checked, answer what the check asks.

Folder of an upload: `<uploads_dir>/<id>/files/<path>` for whole files, `<uploads_dir>/<id>/partial/` for what
is still arriving (see `tus`). It goes when the upload ends, however it ends.
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

from control_plane.domain.details import check_labels
from control_plane.domain.job import JobState
from control_plane.domain.upload import FINAL_STATES, UploadState
from control_plane.domain.views import Page, Reason, UploadView
from control_plane.errors import ChecksumError, ConflictError
from control_plane.registry import jobs as job_rows
from control_plane.registry import session as sessions
from control_plane.registry import uploads
from control_plane.registry.tables import Job, Upload
from control_plane.services import architectures, jobs, tus, upload_declarations, upload_rows
from control_plane.services.context import Context
from control_plane.services.paging import offset
from control_plane.services.receiving import DiskUsage, Incoming
from control_plane.services.upload_declarations import NewFile
from serving_agent.contract.signature import Signature

CHECK = "check"
"""Kind of the job that judges an upload; its parameters are {"upload_id"}."""


def create(
    ctx: Context,
    *,
    model: str,
    files: Sequence[NewFile | tuple[str, int]],
    actor: str,
    details: Mapping[str, Any] | None = None,
    signature: Signature | None = None,
    architecture: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
    handler: str | None = None,
    accept_program: bool = False,
    usage: Callable[[Path], DiskUsage] = shutil.disk_usage,
) -> UploadView:
    """Declare the files, (relative path, size in bytes), of the next version of *model*.

    Raises InvalidInputError for names and sizes that cannot be, TooLargeError beyond the largest upload or
    the quota of *actor*, NoSpaceError when the disk would fall below its floor.
    """
    row = upload_declarations.new_row(
        ctx,
        model=model,
        actor=actor,
        details=details,
        signature=signature,
        architecture=architecture,
        labels=labels,
        handler=handler,
        accept_program=accept_program,
    )
    declared = [NewFile(*file) for file in files]
    upload_declarations.check_files(ctx, declared, usage=usage)
    with sessions.write(ctx.engine) as session:
        upload_declarations.declare(ctx, session, row, declared)
        session.add(row)
        session.flush()
        upload_rows.record(session, row, actor, "upload.created", f"{actor} began an upload for {model}")
        if accept_program:
            upload_rows.record_acceptance(session, row, actor)
        return upload_rows.view(row)


def sink(
    ctx: Context, upload_id: str, path: str, *, usage: Callable[[Path], DiskUsage] = shutil.disk_usage
) -> Incoming:
    """Where all bytes of one declared file go, from the first; sending a file again replaces it.

    Raises NotFoundError, ConflictError when the upload no longer receives, LockedError, NoSpaceError.
    """
    transfer = tus.restart(ctx, upload_id, path)
    return tus.receive(ctx, transfer.id, offset=0, usage=usage)


def complete(
    ctx: Context, upload_id: str, *, actor: str, sha256: Mapping[str, str] | None = None
) -> UploadView:
    """All bytes are sent: have them checked by a job. Idempotent.

    sha256: what files hash to at their sender, hexadecimal, by path. Raises ConflictError naming what is
    missing, ChecksumError naming a file that arrived otherwise, which must be sent again.
    """
    tus.finish_received(ctx, upload_id)
    _compare(ctx, upload_id, sha256 or {})
    with sessions.write(ctx.engine) as session:
        row = upload_rows.locked(session, upload_id)
        if row.state == UploadState.CHECKING:
            return upload_rows.view(row)
        upload_rows.require(row, UploadState.RECEIVING)
        missing = [file.path for file in row.files if file.sha256 is None]
        if missing or not row.files:
            raise ConflictError(
                f"{len(missing)} of {len(row.files)} files have not arrived"
                + (f", among them {missing[0]!r}" if missing else ""),
                next_step="Send them, then complete the upload.",
                missing=missing[:20],
            )
        _check(session, row, actor)
        return upload_rows.view(row)


def _compare(ctx: Context, upload_id: str, sha256: Mapping[str, str]) -> None:
    """Drop a file that arrived otherwise than it was sent. Raises ChecksumError."""
    for file in get(ctx, upload_id).files if sha256 else ():
        if file.sha256 and sha256.get(file.path, file.sha256).lower() != file.sha256:
            if file.transfer_id:
                tus.terminate(ctx, file.transfer_id)
            raise ChecksumError(
                f"{file.path!r} arrived with another SHA-256 than it was sent with",
                next_step="See whether the file changed, then send it again.",
                file=file.path,
                sha256=file.sha256,
            )


def answer(
    ctx: Context,
    upload_id: str,
    *,
    actor: str,
    accept_program: bool | None = None,
    signature: Signature | None = None,
    architecture: Mapping[str, Any] | None = None,
    labels: Sequence[str] | None = None,
    handler: str | None = None,
) -> UploadView:
    """Give what the check asked for; when nothing is left to ask, the upload is checked again.

    Accepting to run the program is recorded with *actor* and the time. architecture: the network of bare
    weights, {"class", "arguments"} or {"config"}. Raises InvalidInputError.
    """
    upload_declarations.check_handler(ctx, handler)
    network = architectures.check(ctx.settings, architecture) if architecture is not None else None
    with sessions.write(ctx.engine) as session:
        row = upload_rows.locked(session, upload_id)
        upload_rows.require(row, UploadState.NEEDS_INPUT)
        if accept_program:
            row.program_accepted_by, row.program_accepted_at = actor, time.time()
            upload_rows.record_acceptance(session, row, actor)
        if signature is not None:
            row.declared_signature = msgspec.to_builtins(signature)
        if network is not None:
            row.architecture = network
        if labels is not None:
            row.labels = check_labels(labels)
        row.handler = handler or row.handler
        given = {"acceptance": accept_program, "signature": signature, "architecture": network}
        _settle(session, row, actor, given={need for need, answer in given.items() if answer})
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


def recent(ctx: Context, *, state: str | None = None, page: int = 1, page_size: int = 20) -> Page[UploadView]:
    """Uploads newest first, all or those in *state*."""
    start = offset(page, page_size)
    with sessions.read(ctx.engine) as session:
        rows, total = uploads.page(session, state=state, offset=start, limit=page_size)
        return Page(tuple(upload_rows.view(row) for row in rows), total, page, page_size)


def expire(ctx: Context, now: float) -> tuple[str, ...]:
    """Cancel uploads that waited longer than upload_rows.IDLE_LIMITS_S and remove folders of ended ones."""
    expired = []
    with sessions.write(ctx.engine) as session:
        for state, limit_s in upload_rows.IDLE_LIMITS_S.items():
            for row in uploads.idle(session, state, now - limit_s):
                _cancel(session, row, "signalbox")
                expired.append(row.id)
    for upload_id in (*expired, *_abandoned(ctx)):
        upload_rows.remove_files(ctx, upload_id)
    return tuple(expired)


def settle(ctx: Context) -> None:
    """End uploads whose job has ended without a word: cancelled before it began, or killed too often."""
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
                message = f"The upload for {row.model_name} was rejected: its {job.kind} did not end"
                upload_rows.record(session, row, "worker", "upload.rejected", message)
        ids = [row.id for row, _ in stranded]
    for upload_id in ids:
        upload_rows.remove_files(ctx, upload_id)


def _unfinished(job: Job) -> dict[str, Any]:
    why = (job.error or {}).get("message", "it ended early")
    words = f"The {job.kind} itself failed: {why}"
    return asdict(Reason(f"{job.kind}-failed", words, "Upload it again."))


def folder(ctx: Context, upload_id: str) -> Path:
    """Where the whole files of the upload lie, under their declared paths."""
    return upload_rows.home(ctx, upload_id) / "files"


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


def _abandoned(ctx: Context) -> tuple[str, ...]:
    """Folders left behind by a crash: of uploads that ended."""
    if not ctx.settings.uploads_dir.is_dir():
        return ()
    present = [path.name for path in ctx.settings.uploads_dir.iterdir() if len(path.name) == 32]
    with sessions.read(ctx.engine) as session:
        return tuple(uploads.ids(session, present, states=tuple(FINAL_STATES)))
