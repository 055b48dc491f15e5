"""`openvino`: the network as an OpenVINO graph, in FP32 or computed in bfloat16."""

from __future__ import annotations

from typing import Final

from control_plane.optimization import openvino_graph
from control_plane.optimization.base import Built, Gains, Subject, Work


class OpenVinoParams(openvino_graph.Precise):
    """In which numbers the graph is computed."""


class OpenVino:
    """Conversion of the exported program; OpenVINO fuses operators as it opens the graph."""

    name = "openvino"
    title = "OpenVINO"
    description = (
        "The same network run by OpenVINO: fused operators, and bfloat16 arithmetic where the processor has "
        "it. Among the best for sentence encoders and for batches of convolutional networks."
    )
    params = OpenVinoParams
    calibrated = False
    cost_s = 5.0
    gains = Gains(latency=4.4, throughput=7.9, size=2.0)

    def inapplicable(self, subject: Subject) -> str | None:
        """Whatever torch.export can follow becomes a graph."""
        return openvino_graph.inapplicable(subject)

    def candidates(self, subject: Subject) -> tuple[OpenVinoParams, ...]:
        """bfloat16 where the processor has it."""
        exact = OpenVinoParams()
        if openvino_graph.has_bf16(subject.machine):
            return (OpenVinoParams(precision="bf16"), exact)
        return (exact,)

    def build(self, work: Work, params: OpenVinoParams) -> Built:
        """Write `model.xml`, `model.bin` and `openvino.json`. Raises BuildError."""
        work.say("convert to OpenVINO")
        model = openvino_graph.converted(work.parent)
        openvino_graph.save(model, work.out, params.precision, halve=params.precision == "bf16")
        return Built(
            format="openvino",
            notes=openvino_graph.notes(params.precision),
            libraries=openvino_graph.LIBRARIES,
        )


METHOD: Final = OpenVino()
