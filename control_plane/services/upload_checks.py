"""Uploads as their check sees them: what was declared, what it asks, how it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from control_plane.domain.details import check_details
from control_plane.domain.names import parse_version_ref
from control_plane.domain.upload import UploadState
from control_plane.domain.views import Reason
from control_plane.errors import NotFoundError
from control_plane.registry import session as sessions
from control_plane.registry import uploads, versions
from control_plane.services import upload_rows
from control_plane.services.context import Context
from serving_agent.contract.signature import Signature


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """What people said of an upload, before and after its check; signature may lack outputs."""

    model: str
    actor: str
    details: dict[str, Any]
    signature: Signature | None
    architecture: dict[str, Any] | None
    """The network of bare weights, as `services.architectures` takes it."""
    labels: tuple[str, ...]
    handler: str | None
    program_accepted_by: str | None
    program_accepted_at: float | None


def declared(ctx: Context, upload_id: str) -> Declared:
    """What the uploader gave with the files, for the job that checks them. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        row = upload_rows.found(uploads.find(session, upload_id), upload_id)
        return Declared(
            model=row.model_name,
            actor=row.created_by,
            details=row.details,
            signature=upload_rows.signature_of(row.declared_signature),
            architecture=row.architecture,
            labels=tuple(row.labels),
            handler=row.handler,
            program_accepted_by=row.program_accepted_by,
            program_accepted_at=row.program_accepted_at,
        )


def ask(ctx: Context, upload_id: str, found: Mapping[str, Any], needs: Sequence[str]) -> None:
    """The check read *found* and needs "acceptance", "signature" or "architecture" from a person."""
    with sessions.write(ctx.engine) as session:
        row = upload_rows.locked(session, upload_id)
        upload_rows.require(row, UploadState.CHECKING)
        row.found = {**check_details(found), "needs": list(needs)}
        row.state, row.updated_at = UploadState.NEEDS_INPUT, time.time()
        message = f"The upload for {row.model_name} waits for {' and '.join(needs)}"
        upload_rows.record(session, row, "worker", "upload.asked", message)


def ask_again(
    ctx: Context, upload_id: str, reason: Reason, need: str, suggested: Signature | None = None
) -> None:
    """What was declared does not fit, for *reason*: another "signature" or "architecture" is needed.

    suggested: the signature that the form starts with; None for what the check read from the file.
    """
    with sessions.write(ctx.engine) as session:
        row = upload_rows.locked(session, upload_id)
        upload_rows.require(row, UploadState.CHECKING)
        suggestion = msgspec.to_builtins(suggested) if suggested else row.found.get("signature")
        row.found = {**row.found, "signature": suggestion, "needs": [need]}
        if need == "signature":
            row.declared_signature = None
        else:
            row.architecture = None
        row.reason = asdict(reason)
        row.state, row.updated_at = UploadState.NEEDS_INPUT, time.time()
        message = f"The upload for {row.model_name} waits for another {need}: {reason.message}"
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
