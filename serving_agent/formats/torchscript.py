"""TorchScript: one `.pt` file written by `torch.jit.save`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

from serving_agent.contract.signature import Signature
from serving_agent.formats import quantized
from serving_agent.formats.base import PositionalModel, only_file


class TorchScript:
    """Opens TorchScript programs."""

    name = "torchscript"
    title = "TorchScript"
    description = "One .pt file written by torch.jit.save; a program."
    is_program = True
    is_native = False
    is_module = True
    libraries = ()

    def load(self, artifact_dir: Path, device: str, signature: Signature) -> PositionalModel:
        """Open the program in eval mode."""
        import torch

        path = only_file(artifact_dir, ".pt")
        quantized.prepare(artifact_dir)
        with warnings.catch_warnings():
            # torch warns that TorchScript is no longer developed: we open it, we do not advise it
            warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
            opened = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
        return PositionalModel(opened.eval(), signature)


FORMAT: Final = TorchScript()
