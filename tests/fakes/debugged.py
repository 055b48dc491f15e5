"""Versions worth debugging, and a job that inspects none of them but says what it is told."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from control_plane.services import registration
from control_plane.services.context import Context
from serving_agent.contract.inspection import InspectionOrder
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes import models
from tests.fakes.inspected_runs import Writer

ROWS: Final = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 2)),))
WIDE: Final = Signature((TensorSpec("x", "FP32", (-1, 64)),), (TensorSpec("y", "FP32", (-1, 10)),))
VOCABULARY: Final = 11
TOKENS: Final = Signature(
    (TensorSpec("input_ids", "INT64", (-1, -1)),), (TensorSpec("logits", "FP32", (-1, -1, VOCABULARY)),)
)


class Planted(nn.Module):
    """Makes the third of its numbers NaN."""

    poison: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("poison", torch.tensor([0.0, 0.0, float("nan")]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.poison


class Residual(nn.Module):
    """A block as transformers have them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Language(nn.Module):
    """Says of every token what comes next, by that token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 8)
        self.head = nn.Linear(8, VOCABULARY)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids))


def with_nan() -> nn.Sequential:
    """A network whose second layer makes a NaN."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), Planted(), nn.Linear(3, 2)).eval()


def deep() -> nn.Sequential:
    """Blocks between two linear layers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), *(Residual(64) for _ in range(4)), nn.Linear(64, 10)).eval()


def int8(network: nn.Module) -> nn.Module:
    """*network* with all its linear layers in 8 bits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of what is deprecated
        quantised: nn.Module = torch.ao.quantization.quantize_dynamic(
            copy.deepcopy(network), {nn.Linear}, dtype=torch.qint8
        )
    return quantised


def faulty(network: nn.Sequential, block: int = 2) -> nn.Sequential:
    """*network* with the weights of one layer in the middle 1.5 times as large."""
    changed = copy.deepcopy(network)
    with torch.no_grad():
        changed[block].down.weight.mul_(1.5)
    return changed


def register(ctx: Context, model: str, network: nn.Module, signature: Signature, **changes: Any) -> str:
    """Register *network* as traced TorchScript; returns `model@N`."""
    example = _example(signature)
    folder = models.save_torchscript(network, ctx.settings.root / "source" / model, example)
    given: dict[str, Any] = {
        "format": "torchscript",
        "handler": "tensor",
        "signature": signature,
        "actor": "ana",
        "program_accepted_by": "ana",
        "program_accepted_at": 1.0,
        **changes,
    }
    return registration.register(ctx, model=model, files_dir=folder, **given)


def _example(signature: Signature) -> torch.Tensor:
    spec = signature.inputs[0]
    sizes = [2 if size == -1 else size for size in spec.shape]
    return torch.zeros(sizes, dtype=torch.int64) if spec.datatype == "INT64" else torch.zeros(sizes)


def inspector(
    *, size: int = 4, during: Callable[[InspectionOrder], None] | None = None
) -> Callable[..., None]:
    """What stands in for `jobs.inspecting.inspect`: leaves a run of one layer with *size* numbers.

    during: called before it leaves anything, and may raise.
    """

    def inspect(
        order: InspectionOrder, _environment: Any, share: Callable[[float], None], _limit: float
    ) -> None:
        share(0.5)
        if during is not None:
            during(order)
        writer = Writer(Path(order.out))
        writer.stage("inputs", x=np.ones(4, np.float32))
        writer.point("layer", np.arange(size, dtype=np.float32))
        writer.write()

    return inspect
