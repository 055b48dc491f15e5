"""Exported programs: one `.pt2` file written by `torch.export.save`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from serving_agent.contract.signature import Signature
from serving_agent.formats import quantized
from serving_agent.formats.base import PositionalModel, only_file

if TYPE_CHECKING:
    from torch.export import ExportedProgram as ExportedProgramOfTorch


class ExportedProgram:
    """Opens programs of torch.export."""

    name = "exported_program"
    title = "torch.export program"
    description = "One .pt2 file written by torch.export.save; a program."
    is_program = True
    is_native = False
    is_module = True
    libraries = ()

    def load(self, artifact_dir: Path, device: str, signature: Signature) -> PositionalModel:
        """Open the program and move it to *device*; it was exported in eval mode or it was not."""
        path = only_file(artifact_dir, ".pt2")
        quantized.prepare(artifact_dir)
        return PositionalModel(open_program(path, device).module(), signature)


def open_program(path: Path, device: str) -> ExportedProgramOfTorch:
    """Return the program in *path*, moved to *device*."""
    import torch

    program = torch.export.load(path)
    if device == "cpu":
        return program
    from torch.export.passes import move_to_device_pass

    return move_to_device_pass(program, device)


FORMAT: Final = ExportedProgram()
