"""`openvino-weights`: an OpenVINO graph whose weights alone are int8 or int4."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from control_plane.optimization import exporting, graph_layers, openvino_graph, sensitivity
from control_plane.optimization.base import BuildError, Built, Gains, Subject, Work
from control_plane.optimization.layers import KeptLayers
from control_plane.optimization.sensitivity import Rounding

COMPRESSED: Final = frozenset({"u8", "i8", "u4", "i4", "nf4"})


class OpenVinoWeightsParams(KeptLayers, openvino_graph.Precise):
    """How weights are stored."""

    bits: Literal[8, 4] = Field(
        default=8,
        title="Bits of a weight",
        description="8 is close to full precision; 4 is smaller and for language models of some size.",
    )
    group: Literal[32, 64, 128] = Field(
        default=64,
        title="Weights that share a scale",
        description="With 4 bits only: fewer is closer and larger.",
    )
    share: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        title="Share of layers with 4 bits",
        description="The rest, the most fragile ones, get 8 bits.",
    )


class OpenVinoWeights:
    """nncf.compress_weights on the converted graph."""

    name = "openvino-weights"
    title = "OpenVINO, int8 or int4 weights"
    description = (
        "Weights as 8- or 4-bit numbers, activations in full precision, run by OpenVINO. A quarter or an "
        "eighth of the size without calibration; faster where reading weights takes the time."
    )
    params = OpenVinoWeightsParams
    calibrated = False
    cost_s = 8.0
    gains = Gains(latency=3.1, throughput=7.2, size=3.9)

    def inapplicable(self, subject: Subject) -> str | None:
        """Whatever becomes an OpenVINO graph."""
        return openvino_graph.inapplicable(subject)

    def candidates(self, subject: Subject) -> tuple[OpenVinoWeightsParams, ...]:
        """8 bits; 4 for language models too."""
        best: openvino_graph.Precision = "bf16" if openvino_graph.has_bf16(subject.machine) else "f32"
        eight = OpenVinoWeightsParams(precision=best)
        return (eight, OpenVinoWeightsParams(bits=4)) if subject.is_language_model else (eight,)

    def build(self, work: Work, params: OpenVinoWeightsParams) -> Built:
        """Write `model.xml`, `model.bin` and `openvino.json`. Raises BuildError."""
        rounding = Rounding(weight_bits=params.bits, group=params.group if params.bits == 4 else None)
        kept = graph_layers.kept_layers(
            work, params, rounding if params.bits == 4 else sensitivity.INT8_WEIGHTS
        )
        work.say("convert to OpenVINO")
        model = openvino_graph.converted(work.parent)
        work.say(f"compress weights to {params.bits} bits")
        made = _compressed(model, params, openvino_graph.ignored(model, work.parent, kept))
        openvino_graph.save(made, work.out, params.precision, halve=params.precision == "bf16")
        return Built(
            format="openvino",
            notes=openvino_graph.notes(params.precision),
            libraries=openvino_graph.NNCF_LIBRARIES,
        )


def _compressed(model: Any, params: OpenVinoWeightsParams, ignored: list[str]) -> Any:
    import nncf

    openvino_graph.quiet_nncf()
    four: dict[str, Any] = {"group_size": params.group, "ratio": params.share} if params.bits == 4 else {}
    mode = nncf.CompressWeightsMode.INT4_SYM if params.bits == 4 else nncf.CompressWeightsMode.INT8_ASYM
    with exporting.quiet():
        try:
            made = nncf.compress_weights(
                model,
                mode=mode,
                ignored_scope=nncf.IgnoredScope(names=ignored, validate=False) if ignored else None,
                **four,
            )
        except nncf.InvalidGroupSizeError as error:
            raise BuildError(
                f"groups of {params.group} weights do not divide its layers: {exporting.first_line(error)}"
            ) from error
    kinds = {node.get_element_type().get_type_name() for node in openvino_graph.constants(made)}
    if not kinds & COMPRESSED:
        raise BuildError("it has no layer left whose weights could be compressed")
    return made


METHOD: Final = OpenVinoWeights()
