"""Uploads by reference: files that lie where this machine can read them, fetched by a job.

A path must lie in one of SIGNALBOX_IMPORT_ROOTS, a URL below one of SIGNALBOX_IMPORT_URLS; both are looked at
when the upload is made and again by the job. Paths are compared as they really are: a link that leads out of
its root leads nowhere, and links inside a folder are refused, not followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from control_plane.config import Settings
from control_plane.domain.references import check_path, check_url, is_url
from control_plane.domain.views import UploadView
from control_plane.errors import InvalidInputError
from control_plane.registry import session as sessions
from control_plane.services import jobs, upload_declarations, upload_rows
from control_plane.services.context import Context
from serving_agent.contract.signature import Signature

FETCH: Final = "fetch"
"""Kind of the job that fetches an upload's files; its parameters are {"upload_id"}."""


def create(
    ctx: Context,
    *,
    model: str,
    reference: str,
    actor: str,
    details: Mapping[str, Any] | None = None,
    signature: Signature | None = None,
    architecture: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
    handler: str | None = None,
    accept_program: bool = False,
) -> UploadView:
    """Have a job fetch the files of the next version of *model* from a path or URL, then check them.

    Raises InvalidInputError for what may not be read, naming the setting that would allow it.
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
        reference=check(ctx.settings, reference),
    )
    with sessions.write(ctx.engine) as session:
        session.add(row)
        session.flush()
        row.job_id = jobs.queue(session, FETCH, subject=model, params={"upload_id": row.id}, actor=actor).id
        message = f"{actor} began an upload for {model} from {row.reference}"
        upload_rows.record(session, row, actor, "upload.created", message, reference=row.reference)
        if accept_program:
            upload_rows.record_acceptance(session, row, actor)
        return upload_rows.view(row)


def check(settings: Settings, reference: str) -> str:
    """Return *reference* as it will be used: a URL as it is, a path without links.

    Raises InvalidInputError for what is not there or not allowed.
    """
    if is_url(reference):
        return check_url(reference, settings.import_urls)
    path = Path(reference)
    if not path.is_absolute():
        raise InvalidInputError(
            f"{reference[:200]!r} is no absolute path",
            next_step="Give a path that starts with a slash, or a URL.",
        )
    roots = [root.expanduser().resolve() for root in settings.import_roots]
    try:
        real = check_path(path.resolve(), roots)
        there = real.is_file() or real.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # a link in a circle, a NUL, too long, not ours
        raise InvalidInputError(
            f"{reference[:200]!r} cannot be read: {getattr(error, 'strerror', None) or str(error)[:200]}",
            next_step="Give a path that the worker can read.",
        ) from error
    if not there:
        raise InvalidInputError(f"There is no file or folder {str(real)[:200]!r}")
    return str(real)
