"""The model as every Python peer loads it: TorchScript, one thread, inference mode."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import torch


def load() -> Any:
    """Return the model of BENCH_MODEL, warmed up; call it with `infer`."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model: Any = torch.jit.load(os.environ["BENCH_MODEL"])  # type: ignore[no-untyped-call]
    row = [int(size) for size in os.environ["BENCH_ROW"].split(",")]
    for _ in range(5):
        infer(model, np.zeros((1, *row), np.float32))
    return model


def infer(model: Any, x: np.ndarray) -> np.ndarray:
    """Return the model's FP32 answer to the FP32 batch *x*; the first dimension is the batch."""
    with torch.inference_mode():
        return np.asarray(model(torch.from_numpy(x)).numpy())
