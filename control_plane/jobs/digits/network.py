"""The example's network. Imports torch: only a job's process may import this module."""

from __future__ import annotations

import torch
from torch import nn


class DigitReader(nn.Module):
    """A small convolutional network that reads 8 × 8 digits."""

    def __init__(self, channels: int, convolutions: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU()]
        for _ in range(convolutions - 1):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten())
        self.classes = nn.Linear(channels * 16, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits FP32 [n, 10] for `image` FP32 [n, 1, 8, 8] in [0, 1]."""
        logits: torch.Tensor = self.classes(self.features(image))
        return logits
