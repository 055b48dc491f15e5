"""Time to the first byte of the answer, judged as latency is; what matters where answers are streamed."""

from __future__ import annotations

from control_plane.analysis.time_metric import TimeMetric
from control_plane.domain.rollout import Guardrail

METRIC = TimeMetric(
    title="time to first byte",
    default=Guardrail("first_byte", tolerance=0.0, max_regression=0.3, alpha_share=0.04),
    by_bucket=lambda arm: arm.first_byte,
    required=False,
)
