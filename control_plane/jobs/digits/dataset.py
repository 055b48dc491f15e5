"""scikit-learn's bundled handwritten digits (UCI ML, 1797 images of 8 × 8), split once and for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

SEED: Final = 7
TEST_COUNT: Final = 360
"""Images that no training sees: one in five."""
DARKEST: Final = 16.0
"""Pixel values run from 0 to this."""
LABELS: Final = tuple("0123456789")


@dataclass(frozen=True, slots=True)
class Digits:
    """Images FP32 [n, 1, 8, 8] in [0, 1] and labels INT64 [n], for training and held out."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load() -> Digits:
    """Return the digits, always split the same way."""
    import torch
    from sklearn.datasets import load_digits

    bundled = load_digits()
    images = torch.tensor(bundled.images, dtype=torch.float32).unsqueeze(1) / DARKEST
    labels = torch.tensor(bundled.target, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED))
    test, train = order[:TEST_COUNT], order[TEST_COUNT:]
    return Digits(images[train], labels[train], images[test], labels[test])
