"""`onnx-runtime`: the network as an ONNX graph in full precision, run by ONNX Runtime."""

from __future__ import annotations

from typing import Final

from control_plane.optimization import onnx_graph
from control_plane.optimization.base import Built, Gains, NoParams, Params, Subject, Work


class OnnxRuntime:
    """torch.onnx.export of an exported program; the session optimises the graph as it opens it."""

    name = "onnx-runtime"
    title = "ONNX Runtime"
    description = (
        "The same network in full precision, run by another engine: fused operators and little overhead. "
        "Pays off most for one row of small convolutional networks."
    )
    params: type[Params] = NoParams
    calibrated = False
    cost_s = 6.0
    gains = Gains(latency=5.0, throughput=2.7, size=1.0)

    def inapplicable(self, subject: Subject) -> str | None:
        """Whatever torch.export can follow becomes a graph."""
        return onnx_graph.inapplicable(subject)

    def candidates(self, subject: Subject) -> tuple[NoParams, ...]:
        """One: there is nothing to choose."""
        del subject
        return (NoParams(),)

    def build(self, work: Work, params: NoParams) -> Built:
        """Write `model.onnx`. Raises BuildError."""
        del params
        work.say("export to ONNX")
        onnx_graph.write(work.parent, work.out / onnx_graph.FILE)
        return Built(format="onnx", libraries=onnx_graph.LIBRARIES)


METHOD: Final = OnnxRuntime()
