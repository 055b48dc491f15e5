"""Server errors as clients see them: after any repeated tries."""

from __future__ import annotations

from control_plane.analysis.share_metric import ShareMetric
from control_plane.domain.rollout import Guardrail

METRIC = ShareMetric(
    title="server errors",
    default=Guardrail("errors", tolerance=0.0, max_regression=0.01, alpha_share=0.5),
    counted=lambda arm: (arm.requests, arm.errors),
    required=True,
    by_unit=True,
)
