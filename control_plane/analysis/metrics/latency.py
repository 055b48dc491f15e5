"""Total time of requests, by how many exceed edges near stable's 50, 90, 95 and 99 % quantiles."""

from __future__ import annotations

from control_plane.analysis.time_metric import TimeMetric
from control_plane.domain.rollout import Guardrail

METRIC = TimeMetric(
    title="latency",
    default=Guardrail("latency", tolerance=0.0, max_regression=0.3, alpha_share=0.25),
    by_bucket=lambda arm: arm.latency,
    required=True,
)
