"""Make the benchmark's models: `python model_files.py FOLDER`.

Writes FOLDER/<workload>/model.pt (TorchScript, fixed seed) and expected.npy (torch's own answers to
`Workload.requests()`, one at a time on one thread). Every server loads these files.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from benchmarks.serving.peers.base import EXPECTED_FILE, MODEL_FILE
from benchmarks.serving.workloads import SEED, WORKLOADS, Workload


class ScaleShift(nn.Module):
    """y = 2x + 1: almost no arithmetic, so that the time goes into moving the tensor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2.0 + 1.0


def tiny() -> nn.Module:
    return nn.Linear(4, 4)


def cnn() -> nn.Module:
    """About 5 ms for one row on one thread of a server CPU: half convolutions, half weight-bound layers.

    The convolutions cost the same per row in any batch; the large matrices are read once per batch, which is
    what batching saves in practice.
    """
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(128, 128, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(128, 128, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128 * 8 * 8, 2048),
        nn.ReLU(),
        nn.Linear(2048, 10),
    )


MODELS: Final[dict[str, Callable[[], nn.Module]]] = {"tiny": tiny, "large": ScaleShift, "cnn5": cnn}


def write(folder: Path, workload: Workload) -> None:
    """Write model and expected answers of *workload* into *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    model = MODELS[workload.name]().eval()
    inputs = torch.from_numpy(workload.requests())
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        program: Any = torch.jit.trace(model, inputs[:1])  # type: ignore[no-untyped-call]
        torch.jit.save(program, str(folder / MODEL_FILE))
    np.save(folder / EXPECTED_FILE, expected(folder / MODEL_FILE, inputs))


def expected(file: Path, inputs: torch.Tensor) -> Any:
    """Return the answers of the saved model, shape (n, *answer), each row computed alone."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        program: Any = torch.jit.load(str(file))  # type: ignore[no-untyped-call]
        return torch.cat([program(row[None]) for row in inputs]).numpy()


def main() -> None:
    torch.set_num_threads(1)
    for workload in WORKLOADS.values():
        write(Path(sys.argv[1]) / workload.name, workload)


if __name__ == "__main__":
    main()
