"""Training one of the example's networks: same recipe, same seed, same weights on one machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from control_plane.jobs.digits.dataset import Digits

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

BATCH: Final = 64
SEED: Final = 11


@dataclass(frozen=True, slots=True)
class Recipe:
    """How large a network is and how long it is trained."""

    channels: int
    convolutions: int
    epochs: int
    learning_rate: float


FIRST: Final = Recipe(channels=8, convolutions=1, epochs=8, learning_rate=2e-3)
"""`digits@1`: small and trained shortly."""
BETTER: Final = Recipe(channels=24, convolutions=2, epochs=16, learning_rate=3e-3)
"""`digits@2`: wider, deeper and trained longer."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network and what was measured."""

    network: nn.Module
    test_accuracy: float
    """Share in [0, 1] of the held-out images that it reads right."""
    train_s: float
    parameters: int


def train(recipe: Recipe, digits: Digits, on_epoch: Callable[[float], None]) -> Trained:
    """Train a network by *recipe*; on_epoch is told the done share in (0, 1] after every epoch.

    The held-out images are looked at once, after the last epoch.
    """
    import torch

    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # sums in one order: the same weights every time
    network = build(recipe)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
    started = time.perf_counter()
    for epoch in range(recipe.epochs):
        _epoch(network, optimizer, digits)
        on_epoch((epoch + 1) / recipe.epochs)
    train_s = time.perf_counter() - started
    network.eval()
    accuracy = _accuracy(network, digits.test_images, digits.test_labels)
    return Trained(network, accuracy, train_s, sum(weight.numel() for weight in network.parameters()))


def build(recipe: Recipe) -> nn.Module:
    """Return an untrained network: `image` FP32 [n, 1, 8, 8] → logits FP32 [n, 10]."""
    from control_plane.jobs.digits.network import DigitReader

    return DigitReader(recipe.channels, recipe.convolutions)


def _epoch(network: nn.Module, optimizer: optim.Optimizer, digits: Digits) -> None:
    import torch
    from torch.nn import functional

    network.train()
    for rows in torch.split(torch.randperm(len(digits.train_labels)), BATCH):
        loss = functional.cross_entropy(network(digits.train_images[rows]), digits.train_labels[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    import torch

    with torch.inference_mode():
        return float((network(images).argmax(dim=1) == labels).float().mean())
