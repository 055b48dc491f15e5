"""`fetch`: brings the files of an upload by reference, then has them checked.

Run again after its process died, it goes on with the files that are not whole yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from control_plane.domain.upload import UploadState
from control_plane.domain.views import Reason
from control_plane.errors import SignalboxError
from control_plane.jobs import sources
from control_plane.jobs.base import Progress
from control_plane.services import fetched_files, imports, uploads
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob, JobCancelled
from control_plane.services.upload_declarations import NewFile


class Fetch:
    """Parameters: {"upload_id"}. Result: {"files", "size_bytes"}."""

    name = "fetch"
    title = "Fetch an upload"
    submittable = False
    description = "Copies or links the files of an upload by reference, then has them checked."

    def run(self, ctx: Context, job: ClaimedJob, progress: Progress) -> Mapping[str, Any]:
        """Bring what has not come yet. Raises SignalboxError where it cannot be read or is not allowed."""
        upload_id = str(job.params["upload_id"])
        upload = uploads.get(ctx, upload_id)
        if upload.state == UploadState.RECEIVING and upload.reference:
            try:
                _fetch(ctx, upload_id, upload.reference, progress)
                uploads.complete(ctx, upload_id, actor=job.created_by)
            except SignalboxError:
                if uploads.get(ctx, upload_id).state == UploadState.CANCELLED:
                    raise JobCancelled(job.id) from None  # its files went under our hands
                raise
        brought = uploads.get(ctx, upload_id)
        return {"files": len(brought.files), "size_bytes": brought.size_bytes}

    def ended(self, ctx: Context, params: Mapping[str, Any], reason: Reason | None) -> None:
        """Reject the upload that could not be fetched, cancel the one whose fetching was cancelled."""
        upload_id = str(params["upload_id"])
        if uploads.get(ctx, upload_id).state != UploadState.RECEIVING:
            return
        if reason is None:
            uploads.cancel(ctx, upload_id, actor="worker")
        else:
            why = Reason(fetched_files.FETCH_FAILED, reason.message, reason.next_step)
            fetched_files.reject(ctx, upload_id, why)


def _fetch(ctx: Context, upload_id: str, reference: str, progress: Progress) -> None:
    source = sources.of(imports.check(ctx.settings, reference), ctx.settings)
    files = source.files()
    fetched_files.declare(ctx, upload_id, files)
    whole = {file.path for file in uploads.get(ctx, upload_id).files if file.sha256}
    steps = _Steps(progress, sum(file.size_bytes for file in files))
    for file in files:
        steps.file(file.path)
        if file.path in whole or _link(ctx, upload_id, source, file):
            steps.add(file.size_bytes)
        else:
            fetched_files.take(ctx, upload_id, file.path, source.blocks(file.path), steps.add)


def _link(ctx: Context, upload_id: str, source: sources.Source, file: NewFile) -> bool:
    opened = source.local(file.path) if ctx.settings.import_link else None
    if opened is None:
        return False
    with opened:
        return fetched_files.link(ctx, upload_id, file.path, opened.fileno())


class _Steps:
    """Counts bytes and tells the job's progress."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total = progress, max(1, total)
        self._done, self._stage = 0, "fetch"

    def file(self, path: str) -> None:
        """Say which file comes next."""
        self._stage = f"fetch {path}"
        self.add(0)

    def add(self, count: int) -> None:
        """Say that *count* more bytes have come. Raises JobCancelled."""
        self._done += count
        self._progress(self._stage, self._done / self._total)


KIND: Final = Fetch()
