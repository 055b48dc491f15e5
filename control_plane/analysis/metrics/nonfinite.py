"""Answers with a NaN or an infinity in them, by the agents' count."""

from __future__ import annotations

from control_plane.analysis.base import ArmCounts
from control_plane.analysis.share_metric import ShareMetric
from control_plane.domain.rollout import Guardrail


def _counted(arm: ArmCounts) -> tuple[int, int] | None:
    return None if arm.answers is None or arm.nonfinite is None else (arm.answers, arm.nonfinite)


METRIC = ShareMetric(
    title="NaN or infinite outputs",
    default=Guardrail("nonfinite", tolerance=0.0, max_regression=0.01, alpha_share=0.03),
    counted=_counted,
    required=False,
    by_agent=True,
)
