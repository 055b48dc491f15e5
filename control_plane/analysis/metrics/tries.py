"""Failed tries: a version's own failures, which clients do not see when another try saves the answer."""

from __future__ import annotations

from control_plane.analysis.base import ArmCounts
from control_plane.analysis.share_metric import ShareMetric
from control_plane.domain.rollout import Guardrail


def _counted(arm: ArmCounts) -> tuple[int, int] | None:
    return None if arm.tries is None or arm.failed_tries is None else (arm.tries, arm.failed_tries)


METRIC = ShareMetric(
    title="failed tries",
    default=Guardrail("tries", tolerance=0.0, max_regression=0.01, alpha_share=0.05),
    counted=_counted,
    required=True,
)
