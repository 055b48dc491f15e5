"""Networks an operator could list in SIGNALBOX_ARCHITECTURES: `tests.fakes.networks:<name>`."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn


class Digits(nn.Module):
    """The digits' classifier with one layer, or with a hidden one of *hidden* units."""

    def __init__(self, hidden: int = 0, classes: int = 10) -> None:
        super().__init__()
        layers = [nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, classes)] if hidden else []
        self.layers = nn.Sequential(nn.Flatten(), *(layers or [nn.Linear(64, classes)]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """FP32 [n, 1, 8, 8] → FP32 [n, classes]."""
        return self.layers(image)


def one_layer() -> nn.Module:
    """A plain `Sequential`, whose tensors are called `1.weight` and `1.bias`."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def normed() -> nn.Module:
    """A `Sequential` with a batch norm, which counts its batches."""
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))


def no_network() -> dict[str, int]:
    """Something that is no module."""
    return {}


class Hungry(Digits):
    """Asks for 16 TiB as soon as it runs: no machine has so much."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """As its parent, if there was memory."""
        return super().forward(image) + torch.empty(1 << 42).sum()


class Repeats(nn.Module):
    """One linear layer, run again and again: the slow one of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(40):
            x = torch.tanh(x) + torch.sigmoid(x)
        return self.lin(x)


def slow_layer() -> nn.Module:
    """A network of which `encoder.1` is slow on purpose."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(8, 8), Repeats(), nn.ReLU())
    return nn.Sequential(OrderedDict(encoder=encoder, head=nn.Linear(8, 4))).eval()
