"""`bf16`: the whole network in bfloat16, FP32 at its edges."""

from __future__ import annotations

from typing import Final

from control_plane.optimization import narrowing
from control_plane.optimization.base import Built, Gains, NoParams, Subject, Work


class Bf16:
    """Weights and arithmetic in bfloat16; frozen TorchScript, or an exported program of a language model."""

    name = "bf16"
    title = "bfloat16"
    description = (
        "Weights and arithmetic in bfloat16: half the size, the range of FP32 and nearly its answers. Up to "
        "4 times faster for batches and large layers on processors with AVX-512 BF16 or AMX; slower for one "
        "row of a small network."
    )
    params = NoParams
    calibrated = False
    cost_s = 3.0
    gains = Gains(latency=2.0, throughput=4.0, size=2.0)

    def inapplicable(self, subject: Subject) -> str | None:
        """Takes a network of torch with floating-point outputs."""
        return narrowing.inapplicable(subject)

    def candidates(self, subject: Subject) -> tuple[NoParams, ...]:
        """There is one."""
        del subject
        return (NoParams(),)

    def build(self, work: Work, params: NoParams) -> Built:
        """Write `model.pt`, or `model.pt2` of a language model."""
        del params
        return narrowing.narrowed(work, "bfloat16")


METHOD: Final = Bf16()
