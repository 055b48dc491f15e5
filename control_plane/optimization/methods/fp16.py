"""`fp16`: the whole network in half precision, FP32 at its edges."""

from __future__ import annotations

from typing import Final

from control_plane.optimization import narrowing
from control_plane.optimization.base import Built, Gains, NoParams, Subject, Work

NOTE: Final = (
    "Half precision halves the size. Processors without FP16 arithmetic compute it slower than FP32 for "
    "batches; on a GPU it is fast."
)


class Fp16:
    """Weights and arithmetic in FP16; frozen TorchScript, or an exported program of a language model."""

    name = "fp16"
    title = "Half precision (FP16)"
    description = (
        "Weights and arithmetic in FP16: half the size, three digits. Made for GPUs; on most processors good "
        "for size and one row at a time only, and slower than FP32 for batches. Numbers above 65504 overflow."
    )
    params = NoParams
    calibrated = False
    cost_s = 3.0
    gains = Gains(latency=1.3, throughput=1.0, size=2.0)

    def inapplicable(self, subject: Subject) -> str | None:
        """Takes a network of torch with floating-point outputs."""
        return narrowing.inapplicable(subject)

    def candidates(self, subject: Subject) -> tuple[NoParams, ...]:
        """There is one."""
        del subject
        return (NoParams(),)

    def build(self, work: Work, params: NoParams) -> Built:
        """Write `model.pt`, or `model.pt2` of a language model. Raises BuildError on overflow."""
        del params
        return narrowing.narrowed(work, "float16", notes=(NOTE,))


METHOD: Final = Fp16()
