"""The models of `models` as TorchScript files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Rotation(nn.Module):
    """Rotates each row of each input (n, 3) by one place; takes every datatype of torch."""

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.cat([x[:, 1:], x[:, :1]], dim=1) for x in inputs)


def save_rotation(inputs: int, path: Path) -> None:
    """Write a Rotation of that many *inputs*."""
    _save(Rotation(), tuple(torch.zeros(2, 3) for _ in range(inputs)), path)


def save_classifier(weights: Any, path: Path) -> None:
    """Write a linear classifier of images; weights: (pixels + 1, classes), the last row is the bias."""
    fitted = torch.from_numpy(weights)
    linear = nn.Linear(fitted.shape[0] - 1, fitted.shape[1])
    with torch.no_grad():
        linear.weight.copy_(fitted[:-1].T)
        linear.bias.copy_(fitted[-1])
    _save(nn.Sequential(nn.Flatten(), linear), (torch.zeros(2, 1, 8, 8),), path)


def _save(model: nn.Module, example: tuple[torch.Tensor, ...], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        torch.jit.save(torch.jit.trace(model.eval(), example), str(path))  # type: ignore[no-untyped-call]
