"""`compare`: reads the weights of two artefacts and keeps what differs, for pages, REST and command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from control_plane.domain.views import Reason
from control_plane.jobs.base import Progress
from control_plane.services import comparison
from control_plane.services.context import Context
from control_plane.services.jobs import ClaimedJob


class Compare:
    """Parameters: {"a", "b"}, digests of artefacts. Result: how many tensors are same, changed, ..."""

    name = "compare"
    title = "Compare weights"
    submittable = False
    description = "Compares two versions tensor by tensor: type, shape, norm and largest difference."

    def run(self, ctx: Context, job: ClaimedJob, progress: Progress) -> Mapping[str, Any]:
        """Compare, keep the outcome, and tell its figures."""
        from control_plane.jobs import stored_tensors, weights_diff  # numpy: for this job alone

        sides = [comparison.stored(ctx, str(job.params[side])) for side in ("a", "b")]
        a, b = (stored_tensors.index(folder, names) for folder, names in sides)
        found = weights_diff.compare(a, b, lambda done: progress("read", done))
        comparison.keep(ctx, str(job.params["a"]), str(job.params["b"]), found)
        return {
            "tensors": len(found.tensors),
            **found.counts(),
            "max_difference": found.max_difference,
            "read_bytes": found.read_bytes,
        }

    def ended(self, ctx: Context, params: Mapping[str, Any], reason: Reason | None) -> None:
        """Nothing waits for it: whoever looks again sees that it has ended."""


KIND: Final = Compare()
