"""Writing the example's networks as the two kinds of programs that are served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving_agent.contract.signature import Signature, TensorSpec

if TYPE_CHECKING:
    from torch import nn

SIGNATURE: Final = Signature(
    inputs=(TensorSpec("image", "FP32", (-1, 1, 8, 8)),),
    outputs=(TensorSpec("logits", "FP32", (-1, 10)),),
)


def as_torchscript(network: nn.Module, path: Path) -> None:
    """Write *network* as TorchScript."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch deprecates what its users still hold
        scripted = torch.jit.script(network)
    torch.jit.save(scripted, path)


def as_exported_program(network: nn.Module, path: Path) -> None:
    """Write *network* with torch.export, for any batch size."""
    import torch

    batch = torch.export.Dim("batch")
    example = torch.zeros(2, 1, 8, 8)
    program = torch.export.export(network, (example,), dynamic_shapes={"image": {0: batch}})
    torch.export.save(program, path)
