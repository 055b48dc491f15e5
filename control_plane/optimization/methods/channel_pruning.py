"""`channel-pruning`: whole channels cut out, so that tensors really shrink."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from control_plane.optimization import containers, exporting, layers
from control_plane.optimization.base import BuildError, Built, Gains, Params, Parent, Subject, Work

if TYPE_CHECKING:
    from torch.nn import Module


class ChannelPruningParams(Params):
    """How many channels go."""

    amount: float = Field(
        default=0.25,
        gt=0,
        le=0.9,
        title="Share of channels",
        description="Channels of each layer that are cut out, as a share; the answers' own stay.",
    )
    round_to: int = Field(
        default=8,
        ge=1,
        le=64,
        title="Multiple of",
        description="Numbers of channels that are left are multiples of this, which kernels are made for.",
    )


class ChannelPruning:
    """torch_pruning's dependency graph, channels ranked by the size of their weights."""

    name = "channel-pruning"
    title = "Structured channel pruning"
    description = (
        "Cuts the weakest channels out of convolutions and linear layers, and everything that hangs on them: "
        "smaller and faster by about the square of what is left. Answers get worse; without fine-tuning only "
        "small shares are worth it."
    )
    params = ChannelPruningParams
    calibrated = False
    cost_s = 4.0
    gains = Gains(latency=1.8, throughput=1.9, size=1.3)

    def inapplicable(self, subject: Subject) -> str | None:
        """Layers of other widths can be put into networks of modules only."""
        if subject.is_language_model or subject.format == "huggingface":
            return "channels of a transformer are added up over all its layers and cannot be cut one by one"
        return layers.irreplaceable(subject)

    def candidates(self, subject: Subject) -> tuple[ChannelPruningParams, ...]:
        """Small shares."""
        del subject
        return (ChannelPruningParams(amount=0.125), ChannelPruningParams())

    def build(self, work: Work, params: ChannelPruningParams) -> Built:
        """Write `model.pt`. Raises BuildError where no channel could be cut out."""
        import torch

        before = size_of(work.parent.network)
        shapes = shapes_of(work.parent.module, work.parent.samples)
        work.say("find what hangs together")
        with torch.enable_grad(), exporting.quiet():  # dependencies are read off the graph of autograd
            try:
                cut(work.parent, params)
            except Exception as error:
                raise BuildError(
                    f"its layers' dependencies cannot be followed: {exporting.first_line(error)}"
                ) from error
        left = size_of(work.parent.network)
        if left >= before:
            raise BuildError("no channel could be cut out: all layers are too narrow, or give the answers")
        if shapes_of(work.parent.module, work.parent.samples) != shapes:
            raise BuildError(
                "its answers are made of channels themselves: with fewer they change their shape"
            )
        share = f"{left / before:.0%}"
        work.say(f"{share} of the weights are left")
        built = containers.write(work.parent.module, work, notes=(f"{share} of the weights are left.",))
        return Built(format=built.format, notes=built.notes, libraries=("torch", "torch-pruning"))


METHOD: Final = ChannelPruning()


def cut(parent: Parent, params: ChannelPruningParams) -> None:
    """Cut channels out of the network in place."""
    import torch_pruning

    for weight in parent.network.parameters():
        weight.requires_grad_(True)
    pruner = torch_pruning.pruner.BasePruner(
        parent.network,
        example_inputs=tuple(parent.samples),
        importance=torch_pruning.importance.MagnitudeImportance(p=2),
        pruning_ratio=params.amount,
        round_to=params.round_to,
        ignored_layers=answering(parent),
        forward_fn=_called,
    )
    pruner.step()
    for weight in parent.network.parameters():
        weight.requires_grad_(False)


def answering(parent: Parent) -> list[Module]:
    """The layers that give the answers, whose channels are what clients see: found by trying.

    Tried are those with as many channels as some output has along an axis.
    """
    from torch import nn

    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    wide = {size for shape in shapes_of(parent.module, parent.samples) for size in shape[1:]}
    return [
        layer
        for name, layer in parent.network.named_modules()
        if isinstance(layer, kinds) and layer.weight.shape[0] in wide and gives_answers(parent, name)
    ]


def gives_answers(parent: Parent, name: str) -> bool:
    """Whether the answers change their shapes, or stop, when the layer *name* loses a channel."""
    import torch_pruning

    tried = copy.deepcopy(parent.module)
    layer = tried.get_submodule(layers.inside(parent, name))
    network = tried.get_submodule(layers.inside(parent, ""))
    graph = torch_pruning.DependencyGraph().build_dependency(
        network, example_inputs=tuple(parent.samples), forward_fn=_called
    )
    graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, idxs=[0]).prune()
    try:
        return shapes_of(tried, parent.samples) != shapes_of(parent.module, parent.samples)
    except RuntimeError:
        return True


def shapes_of(module: Callable[..., Any], samples: Sequence[Any]) -> list[tuple[int, ...]]:
    """Shapes of the outputs."""
    return [tuple(output.shape) for output in module(*samples)]


def size_of(network: Module) -> int:
    """Number of weights."""
    return sum(weight.numel() for weight in network.parameters())


def _called(network: Callable[..., Any], inputs: Sequence[Any]) -> Any:
    return network(*inputs)
