"""`onnx-dynamic-int8`: an ONNX graph with int8 weights, activations quantised as they come."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from pydantic import Field

from control_plane.optimization import graph_layers, onnx_graph, sensitivity
from control_plane.optimization.base import BuildError, Built, Gains, Subject, Work
from control_plane.optimization.layers import KeptLayers

PRODUCTS: Final = ("MatMul", "Gemm", "LSTM", "GRU", "Attention")
"""Operators that gain from it. Convolutions do not: ONNX Runtime computes dynamic ones slower than FP32."""


class OnnxDynamicInt8Params(KeptLayers):
    """What is quantised, and how finely."""

    per_channel: bool = Field(
        default=True,
        title="One scale per channel",
        description="A scale for each output of a layer instead of one for all: closer answers.",
    )
    embeddings: bool = Field(
        default=True,
        title="Embedding tables too",
        description="Tables of word vectors as int8: smaller, not faster.",
    )


class OnnxDynamicInt8:
    """onnxruntime.quantization.quantize_dynamic on the exported graph."""

    name = "onnx-dynamic-int8"
    title = "ONNX Runtime, dynamic int8"
    description = (
        "Weights of linear layers as int8, activations quantised as they come, run by ONNX Runtime. A "
        "quarter of the size; needs no calibration. Convolutions stay in full precision."
    )
    params = OnnxDynamicInt8Params
    calibrated = False
    cost_s = 8.0
    gains = Gains(latency=3.5, throughput=7.0, size=3.9)

    def inapplicable(self, subject: Subject) -> str | None:
        """Whatever becomes an ONNX graph; whether it has linear layers is seen when it is opened."""
        return onnx_graph.inapplicable(subject)

    def candidates(self, subject: Subject) -> tuple[OnnxDynamicInt8Params, ...]:
        """Fine scales only: coarse ones are no faster."""
        del subject
        return (OnnxDynamicInt8Params(),)

    def build(self, work: Work, params: OnnxDynamicInt8Params) -> Built:
        """Write `model.onnx`. Raises BuildError where nothing can be quantised."""
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        kept = graph_layers.kept_layers(work, params, sensitivity.INT8)
        kinds = [*PRODUCTS, "Gather"] if params.embeddings else list(PRODUCTS)
        with tempfile.TemporaryDirectory(dir=work.out) as folder:
            graph = Path(folder) / onnx_graph.FILE
            work.say("export to ONNX")
            onnx_graph.write(work.parent, graph)
            model = onnx.load(graph, load_external_data=False)
            before = onnx_graph.operators(model)
            if not before & set(kinds):
                raise BuildError("its graph has no linear or recurrent layer that could be quantised")
            work.say("quantise")
            quantize_dynamic(
                graph,
                work.out / onnx_graph.FILE,
                op_types_to_quantize=kinds,
                per_channel=params.per_channel,
                reduce_range=onnx_graph.reduced_range(),
                weight_type=QuantType.QInt8,
                nodes_to_exclude=onnx_graph.nodes_of(model, kept),
                use_external_data_format=graph.stat().st_size > onnx_graph.LARGEST_FILE,
                extra_options={"MatMulConstBOnly": True},
            )
        if onnx_graph.operators(onnx.load(work.out / onnx_graph.FILE, load_external_data=False)) == before:
            raise BuildError("no layer is left that could be quantised")
        return Built(format="onnx", notes=onnx_graph.notes(), libraries=onnx_graph.LIBRARIES)


METHOD: Final = OnnxDynamicInt8()
