"""`openvino-int8`: an OpenVINO graph of int8 operators, calibrated by NNCF."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from control_plane.optimization import exporting, graph_layers, openvino_graph, sensitivity
from control_plane.optimization.base import BuildError, Built, Gains, Subject, Work
from control_plane.optimization.layers import KeptLayers


class OpenVinoInt8Params(KeptLayers, openvino_graph.Precise):
    """How activations are quantised, and in which numbers the rest is computed."""

    preset: Literal["auto", "performance", "mixed"] = Field(
        default="auto",
        title="Ranges of activations",
        description=(
            "performance centres them on zero; mixed does not, which is closer for activations that are "
            "never negative. auto takes mixed for transformers and performance for the rest."
        ),
    )
    unbiased: bool = Field(
        default=False,
        title="Correct each bias by running the graph",
        description="Slower to build; closer where the quick correction of biases is not enough.",
    )


class OpenVinoInt8:
    """nncf.quantize on the converted graph."""

    name = "openvino-int8"
    title = "OpenVINO, static int8"
    description = (
        "Weights and activations as int8 with ranges found on calibration rows, run by OpenVINO. Fast in "
        "batches, a quarter of the size, and gentle with transformers."
    )
    params = OpenVinoInt8Params
    calibrated = True
    cost_s = 12.0
    gains = Gains(latency=3.2, throughput=6.0, size=3.9)

    def inapplicable(self, subject: Subject) -> str | None:
        """Whatever becomes an OpenVINO graph."""
        return openvino_graph.inapplicable(subject)

    def candidates(self, subject: Subject) -> tuple[OpenVinoInt8Params, ...]:
        """FP32 between the int8 operators first; bfloat16 where the processor has it."""
        exact = OpenVinoInt8Params()
        if openvino_graph.has_bf16(subject.machine):
            return (exact, OpenVinoInt8Params(precision="bf16"))
        return (exact,)

    def build(self, work: Work, params: OpenVinoInt8Params) -> Built:
        """Write `model.xml`, `model.bin` and `openvino.json`. Raises BuildError."""
        kept = graph_layers.kept_layers(work, params, sensitivity.INT8)
        rows = openvino_graph.dataset(work.calibration, work.parent.signature)
        work.say("convert to OpenVINO")
        model = openvino_graph.converted(work.parent)
        work.say(f"calibrate with {work.calibration.rows} rows and quantise")
        made = _quantised(model, rows, work, params, openvino_graph.ignored(model, work.parent, kept))
        openvino_graph.save(made, work.out, params.precision, halve=params.precision == "bf16")
        return Built(
            format="openvino",
            notes=openvino_graph.notes(params.precision),
            libraries=openvino_graph.NNCF_LIBRARIES,
        )


def _quantised(model: Any, rows: Any, work: Work, params: OpenVinoInt8Params, ignored: list[str]) -> Any:
    import nncf

    openvino_graph.quiet_nncf()
    transformer = openvino_graph.is_transformer(model)
    mixed = params.preset == "mixed" or (params.preset == "auto" and transformer)
    with exporting.quiet():
        made = nncf.quantize(
            model,
            rows,
            preset=nncf.QuantizationPreset.MIXED if mixed else nncf.QuantizationPreset.PERFORMANCE,
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            subset_size=len(work.calibration.batches),
            fast_bias_correction=not params.unbiased,
            ignored_scope=nncf.IgnoredScope(names=ignored, validate=False) if ignored else None,
        )
    if not any(node.get_type_name() == "FakeQuantize" for node in made.get_ops()):
        raise BuildError("it has no layer left that could be quantised")
    return made


METHOD: Final = OpenVinoInt8()
