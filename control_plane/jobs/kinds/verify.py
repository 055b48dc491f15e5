"""`verify`: reads every byte of a version again and compares it with what was signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from control_plane.domain.views import Reason
from control_plane.jobs.base import Progress
from control_plane.services import manifests
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob


class Verify:
    """Parameters: {"version_id"}. Result: {"ref", "key_id", "files", "problems"}; no problem: all is well."""

    name = manifests.KIND
    title = "Verify a version"
    submittable = False
    description = "Reads all files of a version and checks them and its row against its signed manifest."

    def run(self, ctx: Context, job: ClaimedJob, progress: Progress) -> Mapping[str, Any]:
        """Check it; what is wrong is the result, not a failure of the job."""
        progress("read", 0.0)
        checked = manifests.check(ctx, str(job.params["version_id"]), lambda done: progress("read", done))
        return {**asdict(checked), "problems": list(checked.problems)[:100]}

    def ended(self, ctx: Context, params: Mapping[str, Any], reason: Reason | None) -> None:
        """Nothing waits for it."""


KIND: Final = Verify()
