"""Layers of a network that methods replace one by one, and which of them stay as they are."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from control_plane.optimization.base import BuildError, Params, Parent, Subject

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn import Module

SHOWN: Final = 5
"""Names of layers that a message gives."""
MOST_KEPT: Final = 64


class KeptLayers(Params):
    """Which layers stay in full precision."""

    keep: tuple[str, ...] = Field(
        default=(), title="Layers kept", description="Names of layers that stay in full precision."
    )
    keep_most_fragile: int = Field(
        default=0,
        ge=0,
        le=MOST_KEPT,
        title="Fragile layers kept",
        description="How many of the layers whose rounding changes the answers most stay in full precision.",
    )


def irreplaceable(subject: Subject) -> str | None:
    """Return why layers cannot be replaced one by one, as a sentence; None where they can."""
    if not subject.is_eager:
        return f"a version of format {subject.format} has no layers that could be replaced one by one"
    return None


def linears(network: Module) -> dict[str, nn.Linear]:
    """Name → layer for every linear layer that runs as one: layers derived from it may do otherwise."""
    from torch import nn

    return {name: layer for name, layer in network.named_modules() if type(layer) is nn.Linear}


def embeddings(network: Module) -> dict[str, nn.Embedding]:
    """Name → table for every embedding that only looks rows up."""
    from torch import nn

    return {
        name: table
        for name, table in network.named_modules()
        if type(table) is nn.Embedding and table.max_norm is None
    }


def split_off(
    layers: Collection[str],
    params: KeptLayers,
    most_fragile: Callable[[int], Collection[str]],
    what: str,
) -> frozenset[str]:
    """Return the names of *layers* to change: all but the kept ones.

    most_fragile: names the given number of fragile layers; asked only where some are to be kept. what: the
    kind of layer, for messages. Raises BuildError for unknown names, and where nothing is left.
    """
    if unknown := sorted(set(params.keep) - set(layers)):
        known = ", ".join(list(layers)[:SHOWN]) or "none"
        raise BuildError(
            f"it has no layer {unknown[0]!r} that could be kept; there are, among others, {known}"
        )
    left = frozenset(layers) - set(params.keep)
    if left and params.keep_most_fragile:
        left -= frozenset(most_fragile(params.keep_most_fragile))
    if not left:
        raise BuildError(f"it has no {what} left that could be changed")
    return left


def told(kept: Collection[str], of: int) -> tuple[str, ...]:
    """The note about layers that were kept; empty where none was."""
    if not kept:
        return ()
    names = sorted(kept)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    shown = ", ".join(names[:SHOWN])
    return (f"{len(names)} of {of} layers stay in full precision: {shown}{more}.",)


def inside(parent: Parent, name: str) -> str:
    """The name that a layer *name* of an eager parent's network has in its `module`."""
    (prefix,) = (found for found, each in parent.module.named_modules() if each is parent.network)
    return f"{prefix}.{name}" if name else prefix


def replace(network: Module, changed: Mapping[str, Any]) -> None:
    """Put the layers of *changed* in the places that their names say, and wherever else the old ones are."""
    twins = {id(network.get_submodule(name)): layer for name, layer in changed.items()}
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in twins:
                setattr(parent, name, twins[id(child)])


def linearise(network: Module) -> None:
    """Turn the transposed layers of GPT-2 and its kin, which transformers calls Conv1D, into linear ones."""
    from torch import nn

    def linear_of(weight: Tensor, bias: Tensor) -> nn.Linear:
        made = nn.Linear(weight.shape[0], weight.shape[1], device="meta")
        made.weight = nn.Parameter(weight.t().contiguous(), requires_grad=False)
        made.bias = nn.Parameter(bias, requires_grad=False)
        return made

    parts = operator.attrgetter("weight", "bias")
    found = {
        name: linear_of(*parts(layer))
        for name, layer in network.named_modules()
        if type(layer).__module__ == "transformers.pytorch_utils" and type(layer).__name__ == "Conv1D"
    }
    replace(network, found)


def without_shortcuts() -> None:
    """Have torch's transformer layers call the layers inside them, rather than one fused operator."""
    import torch

    torch.backends.mha.set_fastpath_enabled(False)
