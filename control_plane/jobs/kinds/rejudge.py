"""`rejudge`: the present gate's word on versions that are stored already."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from control_plane.admission import judging
from control_plane.admission.base import Verdict
from control_plane.domain.views import Reason
from control_plane.errors import SignalboxError
from control_plane.jobs.base import Progress
from control_plane.registry.artifacts import link_or_copy
from control_plane.services import rejudging
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob

_log = logging.getLogger(__name__)


class Rejudge:
    """Parameters: {"version_id"} or {"every": bool}. Result: how many versions got which decision.

    Of many, those that cannot be judged (their files are missing) are counted as "failed", with the reason in
    the job's log; one that was named ends the job.
    """

    name = rejudging.KIND
    title = "Judge versions again"
    submittable = False
    description = "Has the present gate judge stored versions: their original upload, else their files."

    def run(self, ctx: Context, job: ClaimedJob, progress: Progress) -> Mapping[str, Any]:
        """Judge one version after the other; each is recorded at once, so a rerun goes on where it was."""
        version_ids = rejudging.wanted(ctx, job.params)
        counts: Counter[str] = Counter()
        for number, version_id in enumerate(version_ids):
            try:
                decision = _rejudge(ctx, version_id, job, progress, number / len(version_ids))
            except (SignalboxError, OSError) as error:
                if "version_id" in job.params:
                    raise
                _log.warning("version %s could not be judged: %s", version_id, error)
                decision = "failed"
            if decision is not None:
                counts[decision] += 1
        return {"versions": counts.total(), **counts}

    def ended(self, ctx: Context, params: Mapping[str, Any], reason: Reason | None) -> None:
        """Nothing waits for it: what is still due is queued again at the next start."""


def _rejudge(ctx: Context, version_id: str, job: ClaimedJob, progress: Progress, share: float) -> str | None:
    """Judge one version; the decision, None when it is gone."""
    stored = rejudging.stored(ctx, version_id)
    if stored is None:
        return None
    verdict = _judge(ctx, stored, progress, share)
    rejudging.record(ctx, version_id, verdict, actor=job.created_by)
    return verdict.decision


def _judge(ctx: Context, stored: rejudging.Stored, progress: Progress, share: float) -> Verdict:
    progress(f"judge {stored.ref}", share)
    waiting = ctx.settings.artifacts_dir / "tmp"  # where the store's own housekeeping cleans up
    waiting.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rejudge-", dir=waiting) as work:
        folder, scratch = Path(work) / "files", Path(work) / "unpacked"
        scratch.mkdir()
        _link(stored, folder)
        return judging.judge(
            folder, scratch, progress=lambda _stage, _done: progress(f"judge {stored.ref}", share)
        )


def _link(stored: rejudging.Stored, folder: Path) -> None:
    """Put the files that are to be judged below *folder*, which lies on the store's own disk."""
    for name in stored.files:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(stored.folder / name, place)


KIND: Final = Rejudge()
