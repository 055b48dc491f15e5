"""`onnx-static-int8`: an ONNX graph of int8 operators with fixed ranges, found with calibration rows."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field

from control_plane.optimization import graph_layers, onnx_graph, sensitivity
from control_plane.optimization.base import BuildError, Built, Gains, Subject, Work
from control_plane.optimization.layers import KeptLayers

WEIGHTED: Final = ("Conv", "MatMul", "Gemm")
FRAGILE: Final = frozenset({"Softmax", "LayerNormalization"})
"""A graph with these is a transformer: the ranges of what lies between its products differ too widely."""


class OnnxStaticInt8Params(KeptLayers):
    """How ranges are found, and what is quantised."""

    ranges: Literal["minmax", "entropy", "percentile"] = Field(
        default="minmax",
        title="Ranges from",
        description=(
            "minmax takes all that was seen, percentile leaves out the outermost values, entropy looks for "
            "the range that keeps most information. The last two need more memory and time."
        ),
    )
    operators: Literal["auto", "all", "weighted"] = Field(
        default="auto",
        title="Operators",
        description=(
            "all keeps data in int8 from layer to layer; weighted quantises only around convolutions and "
            "products with weights. auto takes weighted for transformers and all for the rest."
        ),
    )
    per_channel: bool = Field(
        default=True,
        title="One scale per channel",
        description="A scale for each output of a layer instead of one for all: closer answers.",
    )


class OnnxStaticInt8:
    """onnxruntime.quantization.quantize_static in the QDQ form."""

    name = "onnx-static-int8"
    title = "ONNX Runtime, static int8"
    description = (
        "Weights and activations as int8 with ranges found beforehand on calibration rows, run by ONNX "
        "Runtime. The fastest for many convolutional networks; transformers lose much of their accuracy."
    )
    params = OnnxStaticInt8Params
    calibrated = True
    cost_s = 10.0
    gains = Gains(latency=5.8, throughput=8.0, size=3.9)

    def inapplicable(self, subject: Subject) -> str | None:
        """Whatever becomes an ONNX graph."""
        return onnx_graph.inapplicable(subject)

    def candidates(self, subject: Subject) -> tuple[OnnxStaticInt8Params, ...]:
        """All that was seen first; without outliers where answers suffer."""
        del subject
        return (OnnxStaticInt8Params(), OnnxStaticInt8Params(ranges="percentile"))

    def build(self, work: Work, params: OnnxStaticInt8Params) -> Built:
        """Write `model.onnx`. Raises BuildError without calibration rows or layers to quantise."""
        import onnx

        kept = graph_layers.kept_layers(work, params, sensitivity.INT8)
        rows = onnx_graph.reader(work.calibration, work.parent.signature)
        with tempfile.TemporaryDirectory(dir=work.out) as folder:
            graph = Path(folder) / onnx_graph.FILE
            work.say("export to ONNX")
            onnx_graph.write(work.parent, graph)
            model = onnx.load(graph, load_external_data=False)
            if not onnx_graph.operators(model) & set(WEIGHTED):
                raise BuildError("its graph has no convolution or linear layer that could be quantised")
            work.say(f"calibrate with {work.calibration.rows} rows and quantise")
            _quantise(graph, work.out / onnx_graph.FILE, rows, params, model, kept)
        made = onnx_graph.operators(onnx.load(work.out / onnx_graph.FILE, load_external_data=False))
        if "QuantizeLinear" not in made:
            raise BuildError("no layer is left that could be quantised")
        return Built(format="onnx", notes=onnx_graph.notes(), libraries=onnx_graph.LIBRARIES)


def _quantise(
    source: Path,
    target: Path,
    rows: Any,
    params: OnnxStaticInt8Params,
    model: Any,
    kept: Collection[str],
) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = source.with_name("prepared.onnx")
    # names of nodes must survive: the session fuses them itself when it opens the graph
    quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    quantize_static(
        prepared,
        target,
        rows,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(WEIGHTED) if _weighted_only(params, model) else None,
        per_channel=params.per_channel,
        reduce_range=onnx_graph.reduced_range(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=onnx_graph.nodes_of(model, kept),
        calibrate_method=methods[params.ranges],
        use_external_data_format=source.stat().st_size > onnx_graph.LARGEST_FILE,
        extra_options={"MatMulConstBOnly": True, "ActivationSymmetric": False, "WeightSymmetric": True},
    )


def _weighted_only(params: OnnxStaticInt8Params, model: Any) -> bool:
    if params.operators == "auto":
        return bool(onnx_graph.operators(model) & FRAGILE)
    return params.operators == "weighted"


METHOD: Final = OnnxStaticInt8()
