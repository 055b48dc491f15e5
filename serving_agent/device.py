"""Which device a model is put on."""

from __future__ import annotations

import re
from typing import Final

from serving_agent.errors import StartError

CUDA: Final = re.compile(r"cuda:(\d+)")


def resolve(requested: str) -> str:
    """Return `cpu` or `cuda:N` for `auto`, `cpu` or `cuda:N`; imports torch. Raises StartError."""
    if requested == "cpu":
        return "cpu"
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if requested == "auto":
        return "cuda:0" if gpus else "cpu"
    return choose_gpu(requested, gpus)


def choose_gpu(requested: str, gpus: int) -> str:
    """Return *requested* where one of *gpus* GPUs has its number. Pure. Raises StartError."""
    match = CUDA.fullmatch(requested)
    if match is None:
        raise StartError(f"unknown device {requested!r}; it must be auto, cpu or cuda:N")
    if gpus == 0:
        raise StartError(f"the device {requested} was asked for, but no NVIDIA GPU found")
    if int(match[1]) >= gpus:
        raise StartError(f"the device {requested} was asked for, but there are only {gpus} NVIDIA GPUs")
    return requested
