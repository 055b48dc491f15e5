"""Static int8 of exported graphs: torchao's PT2E with the quantizer of Inductor's x86 backend."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from control_plane.optimization import graph_layers
from control_plane.optimization.base import BuildError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import ExportedProgram
    from torch.fx import GraphModule, Node

OPTIONS: Final[dict[str, Any]] = {"freezing": True}
"""Settings of Inductor: only frozen weights are packed for its int8 kernels."""
TOLERANCE: Final = 0.05
"""Largest difference of int8 kernels from the graph with its roundings spelt out, relative to the output."""


def quantised(
    program: ExportedProgram, batches: Iterable[Sequence[Tensor]], kept: Collection[str]
) -> tuple[GraphModule, int]:
    """Return *program* with int8 operators calibrated on *batches*, and how many operators became int8.

    kept: names of modules of the exported network whose operators stay as they are. Raises BuildError where
    none would change.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer, counted = quantizer_for(kept)
    graph = program.module()
    graph.graph.eliminate_dead_code()  # a head that nobody reads has no output, and the quantizer takes one
    graph.recompile()
    prepared = prepare_pt2e(graph, quantizer)
    if not counted():
        raise BuildError("it has no convolution or linear layer that could be quantised")
    for batch in batches:
        prepared(*batch)
    return convert_pt2e(prepared), counted()


def quantizer_for(kept: Collection[str]) -> tuple[Any, Callable[[], int]]:
    """The quantizer, and what counts the operators that it has marked.

    Convolutions of one input channel stay in full precision. Tensors of one channel have the same strides
    channels first and channels last, and Inductor's int8 convolution then reads the wrong order: it returns
    noise, without an error. weights: 8 bits a channel; activations: 7 bits where the processor has no VNNI.
    """
    import torch
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    marked: list[str] = []

    class Careful(x86.X86InductorQuantizer):  # type: ignore[misc]  # torchao has no types
        """Leaves alone what would go wrong, and what is to be kept."""

        def annotate(self, model: GraphModule) -> GraphModule:
            say_sources(model)
            annotated: GraphModule = super().annotate(model)
            for node in annotated.graph.nodes:
                if node.target not in operators():
                    continue
                if has_one_channel(node) or is_inside(node, kept):
                    node.meta.pop("quantization_annotation", None)
                elif "quantization_annotation" in node.meta:
                    marked.append(node.name)
            return annotated

    narrow = not torch.cpu._is_vnni_supported()
    config = x86.get_default_x86_inductor_quantization_config(reduce_range=narrow)
    return Careful().set_global(config), lambda: len(set(marked))


def operators() -> tuple[Any, ...]:
    """The operators whose weights become int8."""
    import torch

    aten = torch.ops.aten
    return (aten.conv2d.default, aten.linear.default)


def say_sources(graph: GraphModule) -> None:
    """Say of each operator which kind of layer it is, by which the quantizer finds it.

    A graph that was exported again, or from a program without modules, does not say so any more.
    """
    import torch
    from torch import nn

    aten = torch.ops.aten
    kinds = {
        aten.conv2d.default: nn.Conv2d,
        aten.linear.default: nn.Linear,
        aten.relu.default: nn.ReLU,
        aten.relu_.default: nn.ReLU,
    }
    for node in graph.graph.nodes:
        if node.target in kinds:
            node.meta["source_fn_stack"] = [(node.name, kinds[node.target])]


def has_one_channel(node: Node) -> bool:
    """Whether *node* is a convolution of an input with one channel, shape (rows, 1, ...)."""
    import torch

    if node.target is torch.ops.aten.linear.default:
        return False
    return bool(node.args[0].meta["val"].shape[1] == 1)  # type: ignore[union-attr]  # a tensor's node


def is_inside(node: Node, kept: Collection[str]) -> bool:
    """Whether *node* was traced in one of the modules called *kept*."""
    stack = node.meta.get("nn_module_stack") or {}
    return bool(graph_layers.kept((path for path, _ in stack.values()), kept))
