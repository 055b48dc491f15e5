"""Layers by the names people know them by, in graphs that were made of a network."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from control_plane.optimization import layers, sensitivity
from control_plane.optimization.base import BuildError, Work
from control_plane.optimization.layers import KeptLayers
from control_plane.optimization.sensitivity import Rounding

if TYPE_CHECKING:
    from torch.nn import Module

AROUND: Final = frozenset({"module", "network", "inner"})
"""Names under which networks lie in what is put around them before they are exported."""


def is_within(path: str, layer: str) -> bool:
    """Whether *path*, as an exported program names a module or tensor, is *layer* or lies in it.

    layer: the module's name in the network itself.
    """
    parts, wanted = path.split("."), layer.split(".")
    for start in range(len(parts) - len(wanted) + 1):
        if parts[start : start + len(wanted)] == wanted:
            return True
        if parts[start] not in AROUND:
            return False
    return False


def kept(paths: Iterable[str], names: Collection[str]) -> frozenset[str]:
    """Those of *paths* that are one of the layers *names* or lie in one."""
    return frozenset(path for path in paths if any(is_within(path, name) for name in names))


def kept_layers(work: Work, params: KeptLayers, rounding: Rounding) -> frozenset[str]:
    """The names of layers of the parent's network that stay in full precision. Raises BuildError."""
    if not (params.keep or params.keep_most_fragile):
        return frozenset()
    if params.keep_most_fragile and work.parent.kind != "eager":
        raise BuildError(
            "a program has no layers of which fragile ones could be told; name the layers to keep"
        )
    named = weighted(work.parent.network)
    if work.parent.kind != "eager":
        named |= dict(work.parent.network.named_modules())  # programs keep the names, not the kinds
    chosen = layers.split_off(
        named,
        params,
        lambda count: sensitivity.most_fragile(work, named, rounding, count),
        "convolution or linear layer",
    )
    return frozenset(named) - chosen


def weighted(network: Module) -> dict[str, Module]:
    """Name → layer for what int8 methods of graphs change."""
    from torch import nn

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding, nn.LSTM, nn.GRU)
    return {name: layer for name, layer in network.named_modules() if type(layer) in kinds}
